"""ZeRO stage 3 gathers and reduces the path alone, and is otherwise the run of stage 1.

That it is exact is shown in test_path_sparse.py's way by test_path_sparse_stage3_exact.py.
"""

from __future__ import annotations

from typing import Any

import pytest
from ranks import run_ranks

pytestmark = pytest.mark.distributed
MOMENTS, MASTER = 8, 4  # bytes a parameter


@pytest.fixture(scope="module", params=[1, 2], ids=["1 rank", "2 ranks"])
def found(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """What every rank found, from one start of the processes."""
    folder = tmp_path_factory.mktemp("stage3")
    return run_ranks("stage3_worker:check_everything", request.param, folder)


# --- cheap --------------------------------------------------------------------------------------


def test_a_step_gathers_and_reduces_its_path_in_few_messages(found: list[Any]) -> None:
    if len(found) == 1:
        assert found[0]["traffic"]["4"]["plain"]["calls"] == {"all_reduce": 1}
        return
    for traffic in (rank["traffic"]["4"] for rank in found):
        path = traffic["shared"] + 3 * traffic["operator"]
        micro_batches = 2
        plain, anchored = traffic["plain"], traffic["anchored"]
        assert plain["calls"] == {
            "all_gather_into_tensor": 1, "reduce_scatter_tensor": micro_batches, "all_reduce": 1
        }  # fmt: skip
        assert plain["bytes"] == {
            "all_gather_into_tensor": path, "reduce_scatter_tensor": micro_batches * path,
            "all_reduce": 4,
        }  # fmt: skip
        # The anchor shares two of three operators with the path; nothing of it is reduced.
        assert anchored["calls"] == {**plain["calls"], "all_gather_into_tensor": 2}
        assert anchored["bytes"] == {
            **plain["bytes"], "all_gather_into_tensor": path + traffic["operator"]
        }  # fmt: skip
        assert traffic["reading"]["calls"] == {"all_gather_into_tensor": 1}
        assert traffic["reading"]["bytes"] == {"all_gather_into_tensor": path}


def test_the_number_of_candidates_costs_nothing(found: list[Any]) -> None:
    for rank in found:
        assert rank["traffic"]["4"] == rank["traffic"]["8"]


def test_short_of_memory_operators_are_gathered_again_for_their_backward(found: list[Any]) -> None:
    if len(found) == 1:
        return
    for traffic in (rank["short of memory"] for rank in found):
        # Two micro-batches of three forwards and two backwards: the last operator stays.
        gathers = {"plain": 2 * (3 + 2), "anchored": 2 * (3 + 2 + 2)}
        for kind, number in gathers.items():
            expected = traffic["shared"] + number * traffic["operator"]
            assert traffic[kind]["bytes"]["all_gather_into_tensor"] == expected, kind
            assert traffic[kind]["calls"]["all_gather_into_tensor"] == 1 + number, kind


def test_a_rank_holds_its_part_of_weights_masters_and_moments(found: list[Any]) -> None:
    num_ranks = len(found)
    for rank in found:
        for setting, memory in rank["memory"].items():
            # In fp32 the weights are their own masters, unless these are on the host.
            weights = 0 if setting == "fp32" else 2
            held = (weights + MASTER) * memory["parameters"] / num_ranks
            assert memory["built"] == held, setting
            grown = memory["after a step"] - memory["built"]
            moments = MOMENTS * memory["trained parameters"] / num_ranks
            assert moments <= grown <= moments + 100, f"{setting}: moments and step counters"


# --- the same run -------------------------------------------------------------------------------


def test_losses_are_those_of_stage_1(found: list[Any]) -> None:
    """With MAGIC-A, dropout, evaluation and clipping: the loop knows no stage."""
    loops = found[0]["loops"]
    expected = loops.pop("stage 1")
    for name, loop in loops.items():
        assert loop["valid"] == pytest.approx(expected["valid"], abs=1e-5), name
        assert len(loop["rows"]) == len(expected["rows"]), name
        for row, other in zip(loop["rows"], expected["rows"], strict=True):
            assert row["kind"] == other["kind"]
            for key, value in row.items():
                assert value == pytest.approx(other[key], abs=1e-5), f"{name}: {key}"


def test_a_resumed_run_repeats_the_uninterrupted_one_bit_by_bit(found: list[Any]) -> None:
    for case in found[0]["resume"]:
        assert case["endings"] == ["finished", "interrupted", "finished"]
        assert case["steps equal"]
        assert case["weights equal"]


def test_a_trained_model_is_an_ordinary_module_of_its_masters(found: list[Any]) -> None:
    for rank in found:
        restored = rank["restored"]
        assert restored["marks"] == []
        assert restored["equal"]
        assert restored["dtypes"] == ["torch.float32"]
        assert restored["finite"]


# --- mistakes are refused -----------------------------------------------------------------------


def test_deepspeeds_pickles_are_refused(found: list[Any]) -> None:
    for rank in found:
        assert "pickles" in rank["mistakes"]["save"]
        assert "pickles" in rank["mistakes"]["load"]


def test_weights_that_are_not_there_are_not_trained(found: list[Any]) -> None:
    for rank in found:
        assert "use gathered(path) to read" in rank["mistakes"]["unread"]
        assert "layers.1.op1 are partitioned" in rank["mistakes"]["other path"]
