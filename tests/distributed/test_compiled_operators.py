"""Compiled operators under ZeRO: gradients reach its hooks, and weights its gathering."""

from __future__ import annotations

from pathlib import Path

import pytest
from ranks import run_ranks

pytestmark = pytest.mark.distributed


@pytest.mark.parametrize("stage", [1, pytest.param(3, marks=pytest.mark.slow)])
def test_the_engine_trains_as_with_plain_operators(tmp_path: Path, stage: int) -> None:
    """Two ranks, random paths, aligned to an anchor whose operators run without gradients."""
    for found in run_ranks("compiled_worker:compare", 2, tmp_path, stage):
        assert found["losses"] < 1e-5
        assert found["weights"] < 2e-5
        assert not found["breaks"]
        # Each of three operators once with gradients, and the anchor's once without.
        assert 3 < found["compiled"] <= 6
