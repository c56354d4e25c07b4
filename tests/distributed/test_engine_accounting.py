"""A step touches and sends what its path needs, whatever the number of candidates; by counting.

Torch reports every operator and every collective to the counter, so the figures are exact. Stock
DeepSpeed is the mutant: its figures grow with the candidates, and the checks must see it.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from ranks import run_ranks

pytestmark = pytest.mark.distributed
STAGES = (0, 1, 2, 3)
FLOAT = 4  # bytes
# Of each parameter of a rank's share: 4 for the norm, 28 for weight, gradient and two moments; a
# gradient that is clipped is written back. Counters and norms are a fraction of a percent here.
STEP_BYTES = {"": 36.2, ", unclipped": 32.2}
# With several ranks, of each parameter: message, what comes in, and copying it into place.
GATHER_BYTES = 16.5


@pytest.fixture(
    scope="module",
    params=[pytest.param(1, id="1 rank", marks=pytest.mark.slow), pytest.param(2, id="2 ranks")],
)
def counts(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """What every rank counted, from one start of the processes."""
    folder = tmp_path_factory.mktemp("accounting")
    return run_ranks("engine_accounting_worker:count_everything", request.param, folder)


def own(count: dict[str, Any], stage: int, candidates: int = 4, variant: str = "") -> Any:
    return count[f"stage {stage}, {candidates} candidates{variant}"]


@pytest.mark.parametrize("variant", ["", ", aligned"])
@pytest.mark.parametrize("stage", STAGES)
def test_twice_the_candidates_change_no_byte_and_no_message(
    counts: list[Any], stage: int, variant: str
) -> None:
    for count in counts:
        assert own(count, stage, 4, variant) == own(count, stage, 8, variant)


@pytest.mark.parametrize("stage", STAGES)
def test_stock_deepspeed_touches_more_with_more_candidates(counts: list[Any], stage: int) -> None:
    for count in counts:
        small, large = (own(count, stage, candidates, ", stock") for candidates in (4, 8))
        assert large["step"]["bytes_touched"] > 1.7 * small["step"]["bytes_touched"]


@pytest.mark.parametrize("variant", STEP_BYTES)
@pytest.mark.parametrize("stage", STAGES)
def test_the_step_phase_touches_a_parameter_as_often_as_adamw_must(
    counts: list[Any], stage: int, variant: str
) -> None:
    for count in counts:
        num_ranks = len(counts)
        share = num_ranks if stage else 1
        # At stage 3 weights are gathered by the next forward.
        gather = GATHER_BYTES if share > 1 and stage < 3 else 0
        limit = (STEP_BYTES[variant] / share + gather) * count["parameters"]["4"]["path"]
        assert own(count, stage, 4, variant)["step"]["bytes_touched"] <= limit
        assert own(count, stage, 4, ", stock")["step"]["bytes_touched"] > 2 * limit


@pytest.mark.parametrize("stage", STAGES)
def test_gradients_of_the_path_are_reduced_in_one_message(counts: list[Any], stage: int) -> None:
    for count in counts:
        path = count["parameters"]["4"]["path"]
        backward = own(count, stage)["backward"]
        if stage == 3:
            expected = {"_reduce_scatter_base_": 1} if len(counts) > 1 else {}
        else:
            expected = {"allreduce_": 1}
        assert backward["collectives"] == expected
        assert backward["collective_bytes"] == dict.fromkeys(expected, FLOAT * path)
        if stage == 0:  # the mutant
            stock = own(count, stage, 4, ", stock")["backward"]["collective_bytes"]["allreduce_"]
            assert stock == FLOAT * count["parameters"]["4"]["supernet"]


@pytest.mark.parametrize("stage", STAGES)
def test_the_norm_takes_one_sum_and_the_weights_of_the_path_one_gather(
    counts: list[Any], stage: int
) -> None:
    num_ranks = len(counts)
    for count in counts:
        forward, step = own(count, stage)["forward"], own(count, stage)["step"]
        gathers = forward if stage == 3 else step
        assert step["collectives"].get("allreduce_", 0) == (1 if stage else 0)
        names = {"allgather_", "_allgather_base_"} & set(gathers["collectives"])
        if num_ranks == 1 or stage == 0:
            assert not names
            continue
        (name,) = names
        messages = Counter(forward["collectives"]) + Counter(step["collectives"])
        assert messages == {"allreduce_": 1, name: 1}
        share = FLOAT * count["parameters"]["4"]["path"] / num_ranks
        # Each group is padded so that every rank's partition is of one size.
        assert share <= gathers["collective_bytes"][name] < 1.02 * share
        stock = own(count, stage, 4, ", stock")["step"]["collective_bytes"]
        whole = FLOAT * count["parameters"]["4"]["supernet"] / num_ranks
        assert max(stock.values()) >= whole


def test_at_stage_3_the_anchor_adds_its_own_operators_to_what_is_gathered(
    counts: list[Any],
) -> None:
    num_ranks = len(counts)
    for count in counts:
        alone, aligned = (
            sum(own(count, 3, 4, variant)["forward"]["collective_bytes"].values())
            for variant in ("", ", aligned")
        )
        operators = FLOAT * count["parameters"]["4"]["operators"] / num_ranks
        expected = operators if num_ranks > 1 else 0
        assert expected <= aligned - alone <= 1.02 * expected
        for phase in ("backward", "step"):
            variants = [own(count, 3, 4, variant)[phase] for variant in ("", ", aligned")]
            assert variants[0]["collective_bytes"] == variants[1]["collective_bytes"]
