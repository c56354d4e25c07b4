"""The search of launch settings, with times that are known."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from magicbert_kernels import launch_table
from magicbert_kernels.launch_table import read_tables, write_tables

from magicbert.bench.kernels.family import Place
from magicbert.bench.kernels.sizes import Size
from magicbert.bench.kernels.suite import FAMILIES
from magicbert.bench.kernels.tuning import (
    Found,
    by_width,
    combinations,
    fastest,
    search,
    tunable,
    tune,
    with_found,
)
from magicbert.config.sections import KernelBenchSection
from magicbert.errors import UserError

GPU = "NVIDIA H200"
TABLES = read_tables(
    json.dumps({
        "schema": launch_table.SCHEMA,
        "choices": {"norm": {"num_warps": [2, 4, 8], "rows": [1, 2]}},
        "devices": {
            "default": {"norm": [{"settings": {"num_warps": 4, "rows": 1}}]},
            GPU: {"gelu": [{"settings": {"num_warps": 4}}]},
        },
    })
)  # fmt: skip
PRESENT = (("num_warps", 4), ("rows", 1))


def place(tokens: int = 256, width: int = 64, dtype: torch.dtype = torch.bfloat16) -> Place:
    size = Size(tokens, width, dtype)
    return Place(size, torch.device("cpu"), "torch", KernelBenchSection())


def watch(best: dict[str, int], gain: float) -> Any:
    """Everything takes a second, the best settings less, and 8 warps do not compile."""

    def seconds(kernel: str, settings: Any) -> float | None:
        if dict(settings)["num_warps"] == 8:
            return None
        return 1.0 - gain if dict(settings) == best else 1.0

    return seconds


def test_every_combination_is_tried():
    assert len(list(combinations(TABLES.choices["norm"]))) == 6
    assert next(iter(combinations(TABLES.choices["norm"]))) == (("num_warps", 2), ("rows", 1))


def test_the_fastest_settings_are_found_and_those_that_fail_are_not():
    found = search("norm", place(), TABLES, GPU, [watch({"num_warps": 2, "rows": 2}, 0.3)])
    assert found == Found("norm", 64, "bfloat16", (("num_warps", 2), ("rows", 2)))


def test_what_is_there_stays_unless_the_gain_is_above_the_noise():
    best = {"num_warps": 2, "rows": 2}
    assert search("norm", place(), TABLES, GPU, [watch(best, 0.01)]).settings == PRESENT
    assert search("norm", place(), TABLES, GPU, [watch(best, 0.05)]).settings != PRESENT
    assert fastest({}, PRESENT) == PRESENT


def test_one_setting_serves_all_token_counts():
    """2 warps gain 30% at one size and lose more at the other, where 4 are much better."""
    fast, slow = watch({"num_warps": 2, "rows": 1}, 0.3), watch({"num_warps": 4, "rows": 1}, 0.6)
    assert search("norm", place(), TABLES, GPU, [fast, slow]).settings == PRESENT


def test_settings_are_shared_within_a_width_and_a_type():
    places = [place(8), place(16), place(8, width=96), place(8, dtype=torch.float32)]
    assert [len(group) for group in by_width(places)] == [2, 1, 1]


def test_the_table_gets_rows_of_the_device_and_keeps_everything_else():
    found = [
        Found("norm", 1024, "bfloat16", (("num_warps", 8), ("rows", 2))),
        Found("norm", 768, "bfloat16", (("num_warps", 2), ("rows", 2))),
    ]
    tables = read_tables(write_tables(with_found(TABLES, GPU, found)))
    for width, num_warps in ((700, 2), (768, 2), (800, 8), (1024, 8), (2048, 4)):
        assert tables.find("norm", width, "bfloat16", GPU)["num_warps"] == num_warps
    assert tables.find("norm", 768, "float32", GPU)["num_warps"] == 4
    assert tables.devices["default"] == TABLES.devices["default"]
    assert tables.devices[GPU]["gelu"] == TABLES.devices[GPU]["gelu"]
    assert tables.choices == TABLES.choices


def test_nothing_is_searched_without_a_gpu():
    with pytest.raises(UserError, match="searched on a GPU"):
        tune(FAMILIES, [place()], seed=0)


def test_every_kernel_with_choices_is_measured_by_some_case():
    shipped = launch_table.shipped_tables()
    measured = {kernel for _, _, kernel in tunable(FAMILIES, shipped)}
    assert measured <= set(shipped.choices)
    named = {k for family in FAMILIES for kernels in family.kernels.values() for k in kernels}
    assert measured == named & set(shipped.choices)
