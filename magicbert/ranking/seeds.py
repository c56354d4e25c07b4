"""What several seeds of a training say: means, paired differences, and how many seeds it takes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from magicbert.bootstrap import mean_estimate

CONFIDENCE = 0.95
TARGET_HALF_WIDTH = 0.05
MOST_SEEDS = 10_000
# Two seeds may lie close together by chance; a narrow interval of theirs excludes nothing.
FEWEST_SEEDS = 3


@dataclass(frozen=True, slots=True)
class SeedMean:
    """A mean over seeds with two 95% intervals; ``None`` where one seed cannot say.

    Attributes:
        mean: over the seeds.
        sd: standard deviation between seeds (n - 1).
        low: lower end of Student's interval.
        high: upper end.
        bootstrap_low: lower end of the bootstrap interval over seeds; with few seeds too narrow.
        bootstrap_high: upper end.
        num_seeds: how many.
    """

    mean: float
    sd: float | None
    low: float | None
    high: float | None
    bootstrap_low: float | None
    bootstrap_high: float | None
    num_seeds: int

    @property
    def half_width(self) -> float | None:
        """Half of Student's interval."""
        return None if self.high is None else self.high - self.mean


@dataclass(frozen=True, slots=True)
class PairedDifference:
    """What a method gains over a baseline, seed by seed.

    Attributes:
        difference: mean of method minus baseline over common seeds.
        seeds: the common seeds.
        p_value: of Student's paired test, two-sided; ``None`` for fewer than two seeds.
        seeds_needed: for a 95% interval of at most ±0.05, at this standard deviation.
        seeds_needed_at_most: the same at the upper 80% limit of the standard deviation.
    """

    difference: SeedMean
    seeds: tuple[int, ...]
    p_value: float | None
    seeds_needed: int | None
    seeds_needed_at_most: int | None


def over_seeds(values: Sequence[float]) -> SeedMean:
    """Returns the mean of one figure per seed, with its intervals.

    Args:
        values: at least one, each of another seed.
    """
    mean, count = float(np.mean(values)), len(values)
    if count < 2:
        return SeedMean(mean, None, None, None, None, None, count)
    sd = float(np.std(values, ddof=1))
    reach = half_width(sd, count)
    drawn = mean_estimate(values)
    return SeedMean(mean, sd, mean - reach, mean + reach, drawn.low, drawn.high, count)


def half_width(sd: float, count: int) -> float:
    """Returns half of Student's 95% interval of a mean, ``t sd / sqrt(n)``."""
    return float(stats.t.ppf((1 + CONFIDENCE) / 2, count - 1) * sd / math.sqrt(count))


def paired_difference(
    method: Mapping[int, float], baseline: Mapping[int, float]
) -> PairedDifference | None:
    """Compares two methods on the seeds that both have; ``None`` without a common seed.

    Args:
        method: figure by seed.
        baseline: the same of what it is compared with.
    """
    seeds = tuple(sorted(set(method) & set(baseline)))
    if not seeds:
        return None
    gains = [method[seed] - baseline[seed] for seed in seeds]
    mean = over_seeds(gains)
    if mean.sd is None:
        return PairedDifference(mean, seeds, None, None, None)
    if mean.sd == 0:
        return PairedDifference(mean, seeds, float(mean.mean == 0), 2, 2)
    p_value = 2 * float(
        stats.t.sf(abs(mean.mean) / mean.sd * math.sqrt(len(seeds)), len(seeds) - 1)
    )
    limit = sd_upper_limit(mean.sd, len(seeds))
    return PairedDifference(mean, seeds, p_value, seeds_needed(mean.sd), seeds_needed(limit))


def seeds_needed(sd: float, target: float = TARGET_HALF_WIDTH) -> int:
    """Returns the fewest seeds whose 95% interval of a mean is at most ± ``target``.

    Args:
        sd: standard deviation between seeds (for a comparison, of the paired differences).
        target: half-width.
    """
    for count in range(2, MOST_SEEDS):
        if half_width(sd, count) <= target:
            return count
    return MOST_SEEDS


def sd_upper_limit(sd: float, count: int, level: float = 0.8) -> float:
    """Returns the one-sided upper limit of a standard deviation estimated from a few seeds.

    A pilot's standard deviation is as likely too small as too large; planning with its upper
    limit, ``sd sqrt((n - 1) / chi2(1 - level, n - 1))``, keeps the promise more often than not.
    """
    return float(sd * math.sqrt((count - 1) / stats.chi2.ppf(1 - level, count - 1)))


def holm(p_values: Sequence[float]) -> list[float]:
    """Returns p-values adjusted for all of them being looked at (Holm's step-down method)."""
    order = np.argsort(p_values, kind="stable")
    adjusted, largest = [0.0] * len(p_values), 0.0
    for place, index in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - place) * p_values[index]))
        adjusted[index] = largest
    return adjusted


def judge(gain: Mapping[str, Any], target: float = TARGET_HALF_WIDTH) -> str:
    """Returns what an interval of a difference says: better, worse, no difference, undecided.

    *better* and *worse*: the interval lies on one side of 0. *no difference*: it holds 0 and is
    as narrow as was asked for, so that a larger difference is excluded. Everything else is
    *undecided*; one seed alone always is.

    Args:
        gain: with ``low``, ``high``; ``None`` for one seed.
        target: half-width that was asked for.
    """
    low, high = gain["low"], gain["high"]
    if low is None or high is None:
        return "undecided"
    if low > 0 or high < 0:
        return "better" if low > 0 else "worse"
    return "no difference" if (high - low) / 2 <= target else "undecided"


def judge_seeds(gain: Mapping[str, Any]) -> str:
    """Returns what `judge` does, but that two seeds show no absence of a difference.

    Args:
        gain: with ``low``, ``high`` and its ``seeds``.
    """
    judged = judge(gain)
    is_chance = judged == "no difference" and len(gain["seeds"]) < FEWEST_SEEDS
    return "undecided" if is_chance else judged
