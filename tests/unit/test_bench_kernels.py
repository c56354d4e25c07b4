"""``magicbert bench kernels`` as a user runs it, on small sizes and few packages."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import torch
from packaging.requirements import Requirement

from magicbert.bench.kernels import peers
from magicbert.bench.kernels.family import Place
from magicbert.bench.kernels.operation import operation_trial
from magicbert.bench.kernels.sizes import Size, sizes
from magicbert.bench.kernels.suite import FAMILIES, kernel_suite
from magicbert.bench.registry import OWN, AbsentError
from magicbert.bench.suite_record import SCHEMA
from magicbert.config.roots import BenchConfig
from magicbert.config.sections import KernelBenchSection, MeasureSection
from magicbert.errors import UserError
from magicbert.records import read_record

ROOT = Path(__file__).parents[2]
CPU = torch.device("cpu")
# What the page of speed says that the command needs, and what that brings.
NEEDED = {"numpy", "packaging", "pyyaml", "rich", "torch", "transformers", "triton"}
BROUGHT = {"safetensors", "tokenizers"}
IMPORTED_AS = {"scikit-learn": "sklearn"}
# It takes tens of seconds on a CPU.
COMPILED = "torch.compile"


def place(dtype: torch.dtype = torch.float32, tokens: int = 64, width: int = 16) -> Place:
    return Place(Size(tokens, width, dtype), CPU, "torch", KernelBenchSection())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_every_case_runs_and_every_answer_that_is_given_is_right(family, dtype):
    where = place(dtype)
    rivals = dict(family.rivals(where))
    del rivals[COMPILED]
    assert next(iter(rivals)) == OWN
    for direction in family.directions:
        trial = operation_trial(family.operation(where), direction, rivals, CPU, seed=0)
        verdicts = {c.name: trial.judge(c) for c in trial.lineup.contenders}
        assert {name for name, verdict in verdicts.items() if not verdict.is_right} == set()
        assert verdicts.keys() | trial.lineup.absent.keys() == rivals.keys()
        assert trial.floor.bytes > 0
        for contender in trial.lineup.contenders:
            for index in range(trial.num_sets + 1):
                contender.call(index)


def test_sizes_come_from_the_device_unless_given():
    assert [size.width for size in sizes(KernelBenchSection(), CPU)] == [768]
    given = KernelBenchSection(tokens=(8, 300), widths=(32,), dtypes=("float16",))
    found = list(sizes(given, CPU))
    assert [size.shape for size in found] == [(1, 8, 32), (2, 128, 32)]
    assert found[1].pass_bytes == 2 * 128 * 32 * 2
    with pytest.raises(UserError, match="'bf16' is not one of"):
        list(sizes(KernelBenchSection(dtypes=("bf16",)), CPU))


def test_the_first_size_has_every_operation_before_the_second_begins():
    kernels = KernelBenchSection(widths=(16, 32), tokens=(64,))
    config = BenchConfig(kernels=kernels, measure=MeasureSection(device="cpu"))
    cases = kernel_suite(config).cases
    widths = [case.variant["width"] for case in cases]
    assert widths == sorted(widths)
    assert len({case.key for case in cases}) == len(cases)
    assert {case.name.split(",")[0] for case in cases} >= {"alignment loss", "bias and GELU"}


def test_an_unknown_case_is_named():
    config = BenchConfig(
        kernels=KernelBenchSection(cases=("attention",)), measure=MeasureSection(device="cpu")
    )
    with pytest.raises(UserError, match=r"attention.*matches none of .*alignment loss"):
        kernel_suite(config)


@pytest.mark.skipif(torch.cuda.is_available(), reason="a CUDA device is there")
def test_a_gpu_that_is_not_there_is_an_error():
    with pytest.raises(UserError, match="no CUDA device"):
        kernel_suite(BenchConfig(measure=MeasureSection(device="cuda")))


def test_peers_say_why_they_are_absent():
    with pytest.raises(AbsentError, match="not installed"):
        peers.offered("no_such_package.ops", "function", CPU)
    with pytest.raises(AbsentError, match="GPU only"):
        peers.offered("torch.nn", "Linear", CPU)
    with pytest.raises(AbsentError, match="no such file"):
        peers.flash_layer_norm(CPU, "nowhere/layer_norm.py")


def test_the_flash_attention_file_is_loaded_without_its_package(tmp_path):
    """The package would need its CUDA extension; its folder has what the file imports."""
    package = tmp_path / "flash_attn"
    folder = package / "ops" / "triton"
    folder.mkdir(parents=True)
    (package / "utils").mkdir()
    (package / "__init__.py").write_text("raise ImportError('no extension')\n")
    for name in (package / "ops", folder, package / "utils"):
        (name / "__init__.py").write_text("")
    (package / "utils" / "torch.py").write_text("FOUND = 7\n")
    file = folder / "layer_norm.py"
    file.write_text(
        "from flash_attn.utils.torch import FOUND\n\n\ndef layer_norm_fn():\n    return FOUND\n"
    )
    function = peers.flash_layer_norm(torch.device("cuda"), str(file))
    assert function() == 7
    assert "flash_attn" not in sys.modules


def test_the_command_needs_few_packages_and_leaves_a_record(tmp_path):
    """Everything else that magicbert depends on is hidden, as on a GPU machine without it."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    lines = tomllib.loads(text)["project"]["dependencies"]
    names = {Requirement(line).name for line in lines}
    assert names >= NEEDED
    others = {IMPORTED_AS.get(name, name) for name in names - NEEDED - BROUGHT}
    program = (
        f"import sys\nfor name in {sorted(others)!r}: sys.modules[name] = None\n"
        "from magicbert.cli import main\n"
        "main(['bench', 'kernels', '--run.root', 'out', '--kernels.cases', '[bias]',"
        " '--kernels.tokens', '[64]', '--kernels.widths', '[16]', '--measure.rounds', '2',"
        " '--measure.device', 'cpu', '--measure.peers', 'false'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "kernels")])},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    record = read_record(tmp_path / "out" / "run" / "bench" / "kernels-cpu.json", SCHEMA)
    assert [row["case"] for row in record["rows"]] == [
        "bias and GELU, forward",
        "bias and GELU, backward",
    ]
    assert "bias and GELU, forward" in done.stdout
