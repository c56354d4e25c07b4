"""The table of ``magicbert bench kernels --aot``; what is compiled is held in tests/ops."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from magicbert_kernels.ahead_of_time import (
    ARCHITECTURES,
    DTYPES,
    Compilation,
    compilations_of,
    kernel_packages,
)

from magicbert.bench.kernels.resources import (
    FILE,
    HEAD,
    SCHEMA,
    origin,
    streamed_widths,
    table_rows,
)
from magicbert.cli import parse
from magicbert.config.reading import load_config
from magicbert.config.roots import BenchConfig
from magicbert.records import read_record

ROOT = Path(__file__).parents[2]


def row(kernel: str, dtype: str, architecture: str, registers: int) -> dict[str, object]:
    return {
        "kernel": kernel, "dtype": dtype, "architecture": architecture, "registers": registers,
        "spill_bytes": 0, "stack_bytes": 0, "shared_bytes": 64,
        "load_widths": {"32": 1, "128": 4}, "store_widths": {},
    }  # fmt: skip


def test_a_line_holds_every_architecture_of_a_kernel_and_type():
    rows = [
        row(kernel, dtype, f"sm_{number}", number)
        for kernel in ("b", "a") for dtype in ("float32", "bfloat16") for number in (80, 90, 100)
    ]  # fmt: skip
    record = {
        "rows": rows, "architectures": ["sm_80", "sm_90", "sm_100"], "commit": "0" * 40,
        "versions": {"triton": "3.9.0"},
    }  # fmt: skip
    lines = [dict(zip(HEAD, cells, strict=True)) for cells in table_rows(record)]
    assert [(line["kernel"], line["type"]) for line in lines] == [
        ("a", "bfloat16"), ("a", "float32"), ("b", "bfloat16"), ("b", "float32"),
    ]  # fmt: skip
    assert lines[0]["registers"] == "80/90/100"
    assert lines[0]["loads [bits]"] == "/".join(["1x32+4x128"] * 3)
    assert lines[0]["stores [bits]"] == "-/-/-"
    assert "sm_80, sm_90, sm_100" in origin(record)


def test_widths_are_those_of_the_streamed_tensors():
    compilation = Compilation("k", None, {}, {}, 4, (), streamed=("x", "y"))
    found = streamed_widths(compilation, {"x": {128: 2}, "y": {64: 1, 128: 1}, "mask": {8: 4}})
    assert found == {"64": 1, "128": 3}


def test_the_flag_needs_no_value():
    request = parse(["bench", "kernels", "--aot"])
    assert request is not None
    assert load_config(BenchConfig, None, request.overrides).kernels.aot
    assert not load_config(BenchConfig, None, {"target": "kernels"}).kernels.aot


def test_the_interpreter_is_refused_in_one_line(monkeypatch):
    resources = pytest.importorskip("magicbert.bench.kernels.resources")

    def refuse(*_: object) -> None:
        raise RuntimeError("nothing compiles under Triton's interpreter")

    monkeypatch.setattr(resources, "compile_for", refuse)
    with pytest.raises(resources.UserError, match=r"kernels\.aot: nothing compiles"):
        resources.compiled_record()


def test_the_published_record_has_every_kernel_and_no_spill():
    record = read_record(ROOT / "benchmarks" / "results" / FILE, SCHEMA)
    names = {c.kernel for p in kernel_packages() for c in compilations_of(p, torch.bfloat16)}
    assert {row["kernel"] for row in record["rows"]} == names
    assert len(record["rows"]) == len(names) * len(DTYPES) * len(ARCHITECTURES)
    assert len(record["commit"]) == 40
    assert not any(row["spill_bytes"] or row["stack_bytes"] for row in record["rows"])
