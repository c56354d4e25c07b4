"""Times of several calls, measured in turns so that all of them see the same machine."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from torch.utils.benchmark import Timer

TURNS = 5


@dataclass(frozen=True, slots=True)
class Timing:
    """How long a call takes, in whole nanoseconds.

    Attributes:
        median_ns: median over the runs.
        low_ns: lower quartile.
        high_ns: upper quartile.
        num_runs: measured runs, each the mean of a block of calls.
    """

    median_ns: int
    low_ns: int
    high_ns: int
    num_runs: int

    @classmethod
    def of(cls, seconds: list[float]) -> Timing:
        """Returns the median and the quartiles of some runs."""
        low, median, high = (round(1e9 * s) for s in np.percentile(seconds, (25, 50, 75)))
        return cls(max(median, 1), low, high, len(seconds))


def measure(
    calls: Mapping[str, Callable[[], object]], *, num_threads: int, seconds: float
) -> dict[str, Timing]:
    """Returns how long each call takes; waits for a GPU to end its work.

    Args:
        calls: what to time, by name.
        num_threads: CPU threads of the calls.
        seconds: least time spent on each of them.
    """
    timers = {
        name: Timer("call()", globals={"call": call}, num_threads=num_threads)
        for name, call in calls.items()
    }
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(TURNS):
        for name, timer in timers.items():
            times[name] += timer.blocked_autorange(min_run_time=seconds / TURNS).times
    return {name: Timing.of(found) for name, found in times.items()}
