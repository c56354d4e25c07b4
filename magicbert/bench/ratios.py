"""Ratios of two contenders that took turns, with their spread."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from magicbert.bootstrap import estimate


@dataclass(frozen=True, slots=True)
class Spread:
    """A median and the 95% interval of it.

    Attributes:
        median: the figure.
        low: lower end of its bootstrap interval.
        high: upper end.
    """

    median: float
    low: float
    high: float


def paired_ratio(own: Sequence[Sequence[float]], other: Sequence[Sequence[float]]) -> Spread:
    """Returns how many times ``other`` ``own`` takes.

    Each round gives one ratio, of the medians of its steps: both sides of a round ran within a
    second or two of each other, so what the machine did meanwhile cancels.

    Args:
        own: times by round and step; no round is empty.
        other: the same of what it is compared with; as many rounds.
    """
    pairs = zip(own, other, strict=True)
    return spread([statistics.median(a) / statistics.median(b) for a, b in pairs])


def spread(values: Sequence[float]) -> Spread:
    """Returns the median of some figures, a round each, and its interval; there is at least one."""
    found = estimate(values, np.median)
    return Spread(found.value, found.low, found.high)


def median_of(rounds: Sequence[Sequence[float]]) -> float:
    """Returns the median over all steps of all rounds."""
    return statistics.median(value for steps in rounds for value in steps)
