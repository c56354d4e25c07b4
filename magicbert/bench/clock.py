"""Two clocks and the phases of a training step.

Time on the wall is what a user waits, but on a machine with other work it measures that work. The
processor time of a rank (all its threads) leaves out what the rank waits, for other programs and
for other ranks; it repeats within a few percent under load.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch

CLOCKS = ("cpu", "wall")
PHASES = ("forward", "backward", "step", "whole")


@dataclass(frozen=True, slots=True)
class Instant:
    """One reading of both clocks, in seconds."""

    cpu: float
    wall: float

    @classmethod
    def now(cls, device: torch.device) -> Instant:
        """Reads the clocks once the device has done what it was given."""
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return cls(time.process_time(), time.perf_counter())

    def __sub__(self, other: Instant) -> tuple[float, float]:
        return self.cpu - other.cpu, self.wall - other.wall


def phases(marks: Sequence[Instant]) -> dict[str, dict[str, float]]:
    """Returns milliseconds by clock and phase.

    Args:
        marks: before the step, after it was opened, after forward, backward and step. What
            opening a step costs belongs to the step phase.
    """
    spans = [after - before for before, after in itertools.pairwise(marks)]
    found = {}
    for number, clock in enumerate(CLOCKS):
        opened, forward, backward, step = (1e3 * span[number] for span in spans)
        found[clock] = {
            "forward": forward,
            "backward": backward,
            "step": opened + step,
            "whole": opened + forward + backward + step,
        }
    return found
