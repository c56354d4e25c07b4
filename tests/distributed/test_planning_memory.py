"""The memory that --plan names against what real engines allocate, rank by rank."""

from __future__ import annotations

from pathlib import Path

import pytest
from ranks import run_ranks

pytestmark = pytest.mark.distributed
FEW, MANY = 2, 32
# ZeRO stage, precision, rows of a micro-batch, micro-batches, offload. With few rows a step's most
# is gradients and messages; with many it is activations.
CASES = [
    [0, "fp32", FEW, 1, False],
    [0, "bf16", MANY, 2, False],
    [1, "fp32", MANY, 2, False],
    [1, "bf16", FEW, 2, False],
    [1, "bf16", FEW, 1, True],
    [2, "fp32", FEW, 1, False],
    [2, "bf16", MANY, 1, False],
    [3, "fp32", FEW, 1, True],
    [3, "bf16", MANY, 2, False],
]


@pytest.mark.parametrize("num_ranks", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_the_plan_is_within_a_tenth_of_what_is_allocated(num_ranks: int, tmp_path: Path) -> None:
    found = run_ranks("planning_worker:compares", num_ranks, tmp_path, CASES, timeout=500)
    off = []
    for rank, results in enumerate(found):
        for case, (plan, real) in zip(CASES, results, strict=True):
            state = plan["weights"] + plan["masters"] + plan["moments"] + plan["host"]
            ratios = {"state": state / real["steady"]}
            ratios["peak"] = (plan["peak"] + plan["host"]) / real["peak"]
            off += [
                (rank, case, name, round(ratio, 4))
                for name, ratio in ratios.items()
                if not within(ratio, 0.002 if name == "state" else 0.1)
            ]
    assert not off, off


def within(ratio: float, tolerance: float) -> bool:
    return 1 - tolerance <= ratio <= 1 + tolerance
