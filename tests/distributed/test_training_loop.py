"""Whole runs of the loop on real ranks: resume, checkpoints, time limits."""

from __future__ import annotations

from typing import Any

import pytest
from ranks import run_ranks

pytestmark = pytest.mark.distributed
STEPS = 12


@pytest.fixture(scope="module", params=[1, 2], ids=["1 rank", "2 ranks"])
def everywhere(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What every rank found, from one start of the processes."""
    folder = tmp_path_factory.mktemp("loop")
    return run_ranks("loop_worker:everything", request.param, folder)


@pytest.fixture
def found(everywhere: list[Any]) -> Any:
    """What the first rank found."""
    return everywhere[0]


def test_a_resumed_run_repeats_the_uninterrupted_one_bit_by_bit(found: Any) -> None:
    for case in found["resume"]:
        assert case["endings"] == ["finished", "interrupted", "finished"]
        assert case["cut at"] == 5
        assert case["num steps"] == STEPS
        assert case["anchors"] > 2, "the anchor policy must take part in the test"
        assert case["steps equal"], "losses, norms, paths, anchors and scores of every step"
        assert case["weights equal"]
        assert case["valid"][0] == case["valid"][1]
        assert case["tokens"][0] == case["tokens"][1]


def test_old_checkpoints_go(found: Any) -> None:
    assert found["guard"]["kept"] == ["step-12", "step-8"]


def test_another_config_is_refused_with_a_diff(found: Any) -> None:
    message = found["guard"]["other config"]
    assert "a checkpoint of another space or another config" in message
    assert "training.num_steps: 12 -> 13" in message


def test_a_damaged_checkpoint_is_passed_over_for_an_older_one(found: Any) -> None:
    assert found["guard"]["ending"] == "finished"
    assert found["guard"]["retrained"] == 4  # from step 8 to step 12


def test_training_outlives_two_failed_saves_in_a_row(everywhere: list[Any]) -> None:
    found = everywhere[0]["saves"]
    assert found["two"] == "finished"
    assert everywhere[-1]["saves"]["two hits"] == 4
    assert found["two kept"] == ["step-12", "step-6"], "failed saves leave nothing behind"
    assert found["two log"].count("No space left on device") == 4
    assert found["two log"].count("training goes on") == 4


def test_three_failed_saves_in_a_row_end_it_with_what_was_saved(everywhere: list[Any]) -> None:
    for rank in everywhere:
        assert "No space left on device" in rank["saves"]["three"]
        assert rank["saves"]["three kept"] == ["step-2"]


def test_the_last_save_must_not_fail(everywhere: list[Any]) -> None:
    for rank in everywhere:
        assert "No space left on device" in rank["saves"]["last"]
        assert rank["saves"]["last kept"] == ["step-10", "step-8"]


def test_a_time_limit_leaves_a_checkpoint_to_go_on_from(found: Any) -> None:
    assert found["time"] == [["out of time", 1], ["out of time", 2], ["finished", STEPS]]


def test_measuring_interference_changes_nothing(found: Any) -> None:
    stage_1, probed_1, stage_2, probed_2 = found["probe"]["digests"]
    assert stage_1 == probed_1
    assert stage_2 == probed_2
    off, rows, *_ = found["probe"]["rows"]
    assert off == []
    assert [row["step"] for row in rows] == [4, 8, 12]
    # MAGIC-T with k = 1: two of three layers are shared.
    assert {row["num_shared"] for row in rows} == {2}
    assert all(-1 <= row["cosine"] <= 1 for row in rows)


def test_one_message_carries_counts_stops_and_agreement(everywhere: list[Any]) -> None:
    for rank in everywhere:
        message = rank["agreement"]
        assert message["count"]
        assert message["positions"]
        assert message["interrupted"], "any rank may ask for a stop"
        assert not message["out of time"], "the first rank's clock decides alone"


def test_ranks_on_different_paths_stop_together(everywhere: list[Any]) -> None:
    for rank in everywhere:
        has_stopped = "lost step" in rank["agreement"]["error"]
        assert has_stopped == (len(everywhere) > 1)


def test_no_name_in_shared_memory_outlives_the_start(everywhere: list[Any]) -> None:
    for rank in everywhere:
        assert rank["shared buffers"] == []
