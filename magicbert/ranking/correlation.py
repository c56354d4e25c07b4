"""Kendall's tau and Spearman's rho, with intervals over architectures and permutation p-values.

A bootstrap over architectures draws some of them twice. A pair of a thing with itself says nothing
about order, so tau here is summed over pairs of *different* architectures, each pair weighted by
how often it was drawn; counted naively, such pairs are ties and shrink tau.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import rankdata

from magicbert.bootstrap import NUM_RESAMPLES, TAIL_PERCENT, Estimate

NUM_PERMUTATIONS = 2000
Values = NDArray[np.float64]


@dataclass(frozen=True)
class Pairs:
    """The order of every two architectures under two orderings.

    Attributes:
        first: ``[n, n]``, the sign of the difference under the first.
        second: the same under the second.
    """

    first: Values
    second: Values

    @classmethod
    def of(
        cls, first: ArrayLike, second: ArrayLike, groups: Sequence[Hashable] | None = None
    ) -> Pairs:
        """Reads the order from one number per architecture, twice.

        Args:
            first: one number per architecture.
            second: another one per architecture.
            groups: one value per architecture; pairs of different groups are left out.

        Raises:
            ValueError: lengths differ, fewer than two, or a number is not finite.
        """
        a, b = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
        if a.shape != b.shape or a.ndim != 1 or len(a) < 2:
            raise ValueError(f"need two equally long lists of at least 2, got {a.shape}, {b.shape}")
        if not (np.isfinite(a).all() and np.isfinite(b).all()):
            raise ValueError("every score must be finite")
        pairs = cls(np.sign(a[:, None] - a), np.sign(b[:, None] - b))
        if groups is None:
            return pairs
        counted = same_group(groups)
        return cls(pairs.first * counted, pairs.second * counted)

    def tau(self, weights: Values | None = None) -> float:
        """Returns Kendall's tau-b; NaN if all are tied under one of the orderings.

        Args:
            weights: ``[n]``, how often each architecture counts; ``None`` = once.
        """
        w = np.ones(len(self.first)) if weights is None else weights
        return float(self.taus(w[None])[0])

    def taus(self, weights: Values) -> Values:
        """Returns tau-b under each row of weights ``[draws, n]``; NaN where all are tied."""

        def total(matrix: Values) -> Values:
            return np.asarray(np.einsum("rn,rn->r", weights @ matrix, weights))

        untied = total(np.abs(self.first)) * total(np.abs(self.second))
        with np.errstate(invalid="ignore"):
            return np.asarray(total(self.first * self.second) / np.sqrt(untied))

    @property
    def num_compared(self) -> int:
        """How many pairs are tied under neither ordering."""
        return int(np.count_nonzero(self.first * self.second)) // 2


def same_group(groups: Sequence[Hashable]) -> Values:
    """Returns ``[n, n]``: 1 where two architectures share a group, else 0."""
    numbers = {group: number for number, group in enumerate(dict.fromkeys(groups))}
    places = np.array([numbers[group] for group in groups])
    return np.asarray(places[:, None] == places, dtype=np.float64)


def kendall_tau(
    first: ArrayLike,
    second: ArrayLike,
    *,
    groups: Sequence[Hashable] | None = None,
    seed: int = 0,
) -> Estimate:
    """Returns tau-b with its interval over architectures.

    Args:
        first: one number per architecture.
        second: another one per architecture.
        groups: one value per architecture; pairs of different groups are left out, so that what
            tells groups apart (such as their size) has no part in the figure.
        seed: of the resampling.
    """
    pairs = Pairs.of(first, second, groups)
    return with_interval(len(pairs.first), pairs.taus, seed)


def spearman_rho(first: ArrayLike, second: ArrayLike, *, seed: int = 0) -> Estimate:
    """Returns the correlation of ranks (ties take their mean) with its interval."""
    Pairs.of(first, second)  # refuses what cannot be ranked
    a, b = (rankdata(values) - np.mean(rankdata(values)) for values in (first, second))

    def weighted(weights: Values) -> Values:
        count = weights.sum(axis=1)
        mean_a, mean_b = weights @ a / count, weights @ b / count
        variance = (weights @ a**2 / count - mean_a**2) * (weights @ b**2 / count - mean_b**2)
        scale = np.sqrt(np.where(variance > 1e-12, variance, np.nan))
        return np.asarray((weights @ (a * b) / count - mean_a * mean_b) / scale)

    return with_interval(len(a), weighted, seed)


def with_interval(size: int, statistic: Callable[[Values], Values], seed: int) -> Estimate:
    """Returns a weighted statistic and its bootstrap interval over ``size`` architectures.

    Args:
        size: number of architectures.
        statistic: from weights ``[draws, size]`` to one figure per draw.
        seed: of the draws.
    """
    generator = np.random.default_rng(seed)
    draws = generator.multinomial(size, np.full(size, 1 / size), NUM_RESAMPLES).astype(np.float64)
    found, value = statistic(draws), float(statistic(np.ones((1, size)))[0])
    if np.isnan(found).all():
        return Estimate(value, float("nan"), float("nan"), size)
    low, high = np.nanpercentile(found, [TAIL_PERCENT, 100 - TAIL_PERCENT])
    return Estimate(value, float(low), float(high), size)


def permutation_p_value(first: ArrayLike, second: ArrayLike, *, seed: int = 0) -> float:
    """Returns how often a random order agrees with the second as well as the first does.

    One-sided; the observed order counts among the permutations, so the value is never 0.
    """
    pairs = Pairs.of(first, second)
    generator = np.random.default_rng(seed)
    # Ties are the same in every order: the sum of agreements alone tells the orders apart.
    observed, as_good = np.vdot(pairs.first, pairs.second), 1
    for _ in range(NUM_PERMUTATIONS):
        order = generator.permutation(len(pairs.first))
        shuffled = pairs.first.take(order, axis=0).take(order, axis=1)
        as_good += bool(np.vdot(shuffled, pairs.second) >= observed)
    return as_good / (NUM_PERMUTATIONS + 1)
