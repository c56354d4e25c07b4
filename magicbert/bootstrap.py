"""Intervals by resampling: what a mean, or any statistic, would be on other draws of the units."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

NUM_RESAMPLES = 2000
TAIL_PERCENT = 2.5
Values = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure and its 95% interval.

    Attributes:
        value: the statistic on the units as they are.
        low: lower end of the bootstrap interval (percentiles).
        high: upper end.
        num_units: units that were resampled.
    """

    value: float
    low: float
    high: float
    num_units: int


def estimate(
    units: Any, statistic: Callable[[Values], Any] = np.mean, *, seed: int = 0
) -> Estimate:
    """Returns a statistic of independent units with its bootstrap interval.

    Args:
        units: ``[units, ...]``; whole units are drawn with replacement.
        statistic: from such an array to a number.
        seed: of the draws; the same units give the same interval.
    """
    values = np.asarray(units, dtype=np.float64)
    draws = np.random.default_rng(seed).integers(len(values), size=(NUM_RESAMPLES, len(values)))
    found = np.array([statistic(values[draw]) for draw in draws])
    # A resample may be degenerate, such as one in which all units are equal.
    low, high = np.nanpercentile(found, [TAIL_PERCENT, 100 - TAIL_PERCENT])
    return Estimate(float(statistic(values)), float(low), float(high), len(values))


def mean_estimate(units: Any, *, seed: int = 0) -> Estimate:
    """Returns the mean of one figure per unit with its bootstrap interval, as `estimate` does.

    Args:
        units: ``[units]``.
        seed: of the draws.
    """
    values = np.asarray(units, dtype=np.float64)
    draws = np.random.default_rng(seed).integers(len(values), size=(NUM_RESAMPLES, len(values)))
    low, high = np.percentile(values[draws].mean(axis=1), [TAIL_PERCENT, 100 - TAIL_PERCENT])
    return Estimate(float(values.mean()), float(low), float(high), len(values))
