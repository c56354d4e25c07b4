"""Training touches the sampled path and nothing else, as plain torch would with ``grad=None``.

DeepSpeed is real, so are the processes. The stock policy is the mutant: it must fail the checks.
"""

from __future__ import annotations

from typing import Any

import pytest
from ranks import run_ranks

pytestmark = pytest.mark.distributed


@pytest.fixture(scope="module", params=[1, 2], ids=["1 rank", "2 ranks"])
def checks(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """What every rank found, from one start of the processes."""
    folder = tmp_path_factory.mktemp("path_sparse")
    return run_ranks("path_sparse_worker:check_everything", request.param, folder)


def test_unsampled_operators_keep_every_bit(checks: list[Any]) -> None:
    for check in checks:
        for setting, found in check["movements"].items():
            assert found["strays"] == [], setting


def test_sampled_operators_are_trained(checks: list[Any]) -> None:
    # Rank by rank an operator's state lies on other ranks, its weights lie on all.
    for check in checks:
        for setting, found in check["movements"].items():
            assert found["idle"] == [], setting


def test_stock_deepspeed_moves_unsampled_operators(checks: list[Any]) -> None:
    for check in checks:
        for setting, found in check["stock movements"].items():
            weights = [name for name in found["strays"] if name.endswith("weight")]
            counters = [name for name in found["strays"] if name.endswith("step")]
            assert weights, f"{setting}: the check would not notice weights that move"
            assert counters, f"{setting}: the check would not notice counters that run on"


def test_trajectory_is_that_of_adamw_without_gradients_for_unsampled(checks: list[Any]) -> None:
    for check in checks:
        for setting, error in check["trajectory"].items():
            assert error["weights"] < 1e-6, setting
            assert error["norm"] < 1e-5, setting


def test_bf16_trajectory_keeps_fp32_masters(checks: list[Any]) -> None:
    for check in checks:
        for setting, error in check["bf16 trajectory"].items():
            assert error < 1e-5, setting


def test_trajectory_of_stock_deepspeed_is_another_one(checks: list[Any]) -> None:
    for check in checks:
        assert check["stock trajectory"]["weights"] > 1e-4
        assert check["stock trajectory"]["norm"] > 1e-3


def test_gradients_do_not_depend_on_ranks_and_micro_batches(checks: list[Any]) -> None:
    for check in checks:
        for setting, error in check["gradients"].items():
            assert error < 1e-6, setting


def test_pieces_of_all_ranks_rebuild_the_model(checks: list[Any]) -> None:
    for check in checks:
        for setting, faults in check["placement"].items():
            assert faults == [], setting
