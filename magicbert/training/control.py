"""One small message per step: what to divide by, whether all ranks agree, whether to stop."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from magicbert.space import Architecture
from magicbert.supernet.objective import Objective
from magicbert.training.parts import Ending
from magicbert.training.ranks import DisagreementError, Ranks, table
from magicbert.training.samples import MODULUS, StepData


@dataclass(frozen=True)
class Notice:
    """What a rank has to tell the others beside its data.

    Attributes:
        is_interrupted: it was told to stop.
        is_out_of_time: its clock has run out; the first rank's counts.
        late_loss: its share of the loss of the last step that has been read back from the device.
        is_skipped: whether that step was skipped because its gradient was not finite.
    """

    is_interrupted: bool = False
    is_out_of_time: bool = False
    late_loss: float = 0.0
    is_skipped: bool = False


@dataclass(frozen=True)
class StepAgreement:
    """What all ranks know before the first forward of a step.

    Attributes:
        count: loss terms over all ranks and micro-batches.
        num_positions: valid positions over all ranks and micro-batches.
        num_auxiliary: terms of the auxiliary loss over all ranks and micro-batches.
        is_interrupted: some rank was told to stop.
        is_out_of_time: the first rank's clock has run out.
        late_loss: the whole loss of the step that the notices speak of.
        is_skipped: that step was skipped.
    """

    count: int
    num_positions: int
    num_auxiliary: int
    is_interrupted: bool
    is_out_of_time: bool
    late_loss: float = 0.0
    is_skipped: bool = False

    @property
    def ending(self) -> Ending | None:
        """Why the loop ends before this step; ``None`` = it goes on."""
        if self.is_interrupted:
            return "interrupted"
        return "out of time" if self.is_out_of_time else None


class Deadline:
    """The time limit of this start of the run.

    Args:
        minutes: 0 = none.
    """

    def __init__(self, minutes: float) -> None:
        self.end = time.monotonic() + 60.0 * minutes if minutes else float("inf")

    @property
    def is_over(self) -> bool:
        """Whether the time is up."""
        return time.monotonic() >= self.end


def agree(
    ranks: Ranks,
    step: int,
    paths: Sequence[Architecture | None],
    objective: Objective,
    data: StepData,
    notice: Notice,
    run_facts: Mapping[str, object] | None = None,
) -> StepAgreement:
    """Exchanges the message of one step: one all-reduce, before anything of the step is computed.

    Args:
        ranks: all ranks.
        step: number of the step.
        paths: the sampled path and the anchor.
        objective: counts the terms of this rank's micro-batches.
        data: what this rank reads in the step.
        notice: what else this rank has to say.
        run_facts: digests of what was fixed at the start: configuration, space, data, code.

    Raises:
        DisagreementError: ranks differ in step, path, anchor, data position or run, or do not
            together read the samples of the step.
    """
    facts = step_facts(step, paths, data) | dict(run_facts or {})
    batches = data.micro_batches
    sums = ranks.exchange(
        "step",
        [
            sum(objective.count(batch) for batch in batches),
            sum(objective.num_tokens(batch) for batch in batches),
            sum(objective.num_auxiliary(batch) for batch in batches),
            notice.is_interrupted,
            notice.is_out_of_time and ranks.is_first,
            notice.late_loss,
            notice.is_skipped,
            data.own_samples,
        ],
        facts,
    )
    count, positions, auxiliary, interrupted, out_of_time, late_loss, skipped, samples = sums
    if int(samples) % MODULUS != data.all_samples:
        raise DisagreementError(describe_samples(ranks, step, data))
    if skipped not in (0, ranks.num_ranks):
        views = ranks.gather({"last gradient": "not finite" if notice.is_skipped else "finite"})
        raise DisagreementError(
            f"before step {step}, the ranks have lost step with each other:\n{table(views)}"
        )
    return StepAgreement(
        int(count), int(positions), int(auxiliary), interrupted > 0, out_of_time > 0,
        late_loss, skipped > 0,
    )  # fmt: skip


def step_facts(
    step: int, paths: Sequence[Architecture | None], data: StepData
) -> dict[str, object]:
    """Returns what must be the same on every rank in one step."""
    return {
        "step": step,
        "path": paths[0],
        "anchor": paths[1],
        "data position": data.step,
        "samples of the step": f"{data.all_samples:08x}",
    }


def describe_samples(ranks: Ranks, step: int, data: StepData) -> str:
    """Says which samples each rank holds, when together they are not those of the step."""
    ids = data.sample_ids
    view = {
        "data position": str(data.step),
        "samples": f"{len(ids)}: {ids[:3]} ... {ids[-3:]}",
    }
    return (
        f"step {step}: the ranks together do not hold the samples of the step, each of them "
        f"once:\n{table(ranks.gather(view))}"
    )
