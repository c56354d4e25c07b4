"""ZeRO stage 3 trains the path as plain torch does, and moves nothing else.

The mutant is stock ZeRO-3: it steps operators with the last gradient that they ever had.
"""

from __future__ import annotations

from typing import Any

import pytest
from ranks import run_ranks

pytestmark = pytest.mark.distributed


@pytest.fixture(scope="module", params=[1, 2], ids=["1 rank", "2 ranks"])
def found(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """What every rank found, from one start of the processes."""
    folder = tmp_path_factory.mktemp("exact")
    return run_ranks("stage3_exact_worker:check_everything", request.param, folder, timeout=580)


def assert_exact(cells: dict[str, Any]) -> None:
    for name, cell in cells.items():
        assert cell["strays"] == [], name
        assert cell["idle"] == [], name
        # A bf16 weight on the edge between two values may round the other way.
        is_bf16 = "bf16" in name
        assert cell["errors"]["weights"] < (2e-5 if is_bf16 else 1e-6), name
        assert cell["errors"]["loss"] < (1e-3 if is_bf16 else 1e-6), name
        assert cell["errors"]["norm"] < (5e-3 if is_bf16 else 1e-5), name


def weights_of(strays: list[str]) -> list[str]:
    return [name for name in strays if name.endswith(" weight")]


def test_the_path_is_trained_as_plain_torch_trains_it_and_nothing_else_moves(
    found: list[Any],
) -> None:
    for rank in found:
        assert_exact(rank["cells"])
        assert rank["lamb"]["strays"] == []
        assert rank["lamb"]["errors"]["weights"] < 2e-5


def test_other_policies_equal_their_references(found: list[Any]) -> None:
    for rank in found:
        for policy, cell in rank["policies"].items():
            assert cell["errors"]["weights"] < 1e-6, policy
            assert bool(cell["strays"]) == (policy == "zero-gradient"), policy


def test_clipping_was_at_work_where_it_is_on(found: list[Any]) -> None:
    for rank in found:
        for name, cell in rank["cells"].items():
            assert cell["clips"] == ("clip_norm=0.0" not in name), name


def test_stale_gradients_never_return(found: list[Any]) -> None:
    for rank in found:
        assert rank["still"]["strays"] == []
        assert weights_of(rank["still, stock"]["strays"]), "a stale gradient goes unnoticed"


def test_stock_deepspeed_moves_unsampled_operators(found: list[Any]) -> None:
    for rank in found:
        strays = rank["stock"]["strays"]
        assert weights_of(strays), "weights that move go unnoticed"
        assert [name for name in strays if name.endswith(" step")], "counters that run go unnoticed"
        assert rank["stock"]["errors"]["weights"] > 1e-4, "another trajectory goes unnoticed"


def test_pieces_rebuild_the_model(found: list[Any]) -> None:
    for rank in found:
        for cell, faults in rank["placement"].items():
            assert faults == [], cell


@pytest.mark.slow
def test_four_ranks_are_exact(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("four")
    for rank in run_ranks("stage3_exact_worker:check_few", 4, folder, timeout=580):
        assert_exact(rank["cells"])
