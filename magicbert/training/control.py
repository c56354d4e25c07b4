"""One small message per step: what to divide by, whether all ranks agree, whether to stop."""

from __future__ import annotations

import hashlib
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass
from types import FrameType
from typing import Any

from magicbert.space import Architecture
from magicbert.supernet.objective import Objective
from magicbert.training.parts import Ending
from magicbert.training.ranks import AgreedError, Ranks

# Sums of digests over 2**20 ranks still fit a signed 64-bit integer.
DIGEST_BITS = 40


@dataclass(frozen=True)
class StepAgreement:
    """What all ranks know before the first forward of a step.

    Attributes:
        count: loss terms over all ranks and micro-batches.
        num_positions: valid positions over all ranks and micro-batches.
        is_interrupted: some rank was told to stop.
        is_out_of_time: the first rank's clock has run out.
    """

    count: int
    num_positions: int
    is_interrupted: bool
    is_out_of_time: bool

    @property
    def ending(self) -> Ending | None:
        """Why the loop ends before this step; ``None`` = it goes on."""
        if self.is_interrupted:
            return "interrupted"
        return "out of time" if self.is_out_of_time else None


class Interruption:
    """Turns SIGTERM and SIGINT into a flag that is looked at between steps.

    Use as a context manager: the former handlers come back at its end.
    """

    SIGNALS = (signal.SIGTERM, signal.SIGINT)

    def __init__(self) -> None:
        self.is_requested = False
        self._former: dict[int, Any] = {}

    def request(self, number: int = 0, frame: FrameType | None = None) -> None:
        """Asks for a stop after the current step; also the signal handler."""
        self.is_requested = True

    def __enter__(self) -> Interruption:
        self._former = {number: signal.signal(number, self.request) for number in self.SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._former.items():
            signal.signal(number, handler)


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
    micro_batches: Sequence[Any],
    *,
    is_interrupted: bool,
    is_out_of_time: bool,
) -> StepAgreement:
    """Exchanges the message of one step.

    Args:
        ranks: all ranks.
        step: number of the step.
        paths: the sampled path and the anchor.
        objective: counts the terms of this rank's micro-batches.
        micro_batches: this rank's.
        is_interrupted: whether this rank was told to stop.
        is_out_of_time: whether this rank's clock has run out; the first rank's counts.

    Raises:
        AgreedError: ranks are at different steps or paths.
    """
    digest = step_digest(step, paths)
    count, positions, interrupted, out_of_time, digests = ranks.sum(
        [
            sum(objective.count(batch) for batch in micro_batches),
            sum(objective.num_tokens(batch) for batch in micro_batches),
            int(is_interrupted),
            int(is_out_of_time and ranks.is_first),
            digest,
        ]
    )
    if digests != digest * ranks.num_ranks:
        text = f"step {step}, path {paths[0]}, anchor {paths[1]}"
        raise AgreedError(f"the ranks have lost step with each other; rank {ranks.rank}: {text}")
    return StepAgreement(count, positions, interrupted > 0, out_of_time > 0)


def step_digest(step: int, paths: Sequence[Architecture | None]) -> int:
    """Returns a number that differs where step or paths differ."""
    text = f"{step}:{'/'.join(str(path) for path in paths)}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8]) >> (64 - DIGEST_BITS)
