"""Which rank the others wait for."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

# A rank is named when its own work takes so many times the median of all ranks', and no less than
# this share of the whole step.
FACTOR, LEAST_SHARE = 2.0, 0.2


def straggler(own_seconds: Sequence[float], window_seconds: float) -> str | None:
    """Names the slowest rank if it is much slower than the others.

    Args:
        own_seconds: per rank, the time it spent in a window of steps on reading batches and on
            forwards, where it waits for nobody (at ZeRO stages 0 to 2).
        window_seconds: length of the window.
    """
    if len(own_seconds) < 2:
        return None
    slowest = max(range(len(own_seconds)), key=own_seconds.__getitem__)
    others = median(s for rank, s in enumerate(own_seconds) if rank != slowest)
    seconds = own_seconds[slowest]
    if seconds < FACTOR * others or seconds < LEAST_SHARE * window_seconds:
        return None
    return (
        f"rank {slowest} is slow: its own work took {seconds:.2f} s of the last "
        f"{window_seconds:.2f} s, the other ranks' {others:.2f} s"
    )
