"""Kendall's tau and Spearman's rho, with intervals over architectures and permutation p-values.

A bootstrap over architectures draws some of them twice. A pair of a thing with itself says nothing
about order, so tau here is summed over pairs of *different* architectures, each pair weighted by
how often it was drawn; counted naively, such pairs are ties and shrink tau.
"""

from __future__ import annotations

from collections.abc import Callable
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
    def of(cls, first: ArrayLike, second: ArrayLike) -> Pairs:
        """Reads the order from one number per architecture, twice.

        Raises:
            ValueError: lengths differ, fewer than two, or a number is not finite.
        """
        a, b = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
        if a.shape != b.shape or a.ndim != 1 or len(a) < 2:
            raise ValueError(f"need two equally long lists of at least 2, got {a.shape}, {b.shape}")
        if not (np.isfinite(a).all() and np.isfinite(b).all()):
            raise ValueError("every score must be finite")
        return cls(np.sign(a[:, None] - a), np.sign(b[:, None] - b))

    def tau(self, weights: Values | None = None) -> float:
        """Returns Kendall's tau-b; NaN if all are tied under one of the orderings.

        Args:
            weights: ``[n]``, how often each architecture counts; ``None`` = once.
        """
        w = np.ones(len(self.first)) if weights is None else weights
        agreement = w @ (self.first * self.second) @ w
        untied = (w @ np.abs(self.first) @ w) * (w @ np.abs(self.second) @ w)
        return float(agreement / np.sqrt(untied)) if untied > 0 else float("nan")


def kendall_tau(first: ArrayLike, second: ArrayLike, *, seed: int = 0) -> Estimate:
    """Returns tau-b with its interval over architectures."""
    pairs = Pairs.of(first, second)
    return with_interval(len(pairs.first), pairs.tau, seed)


def spearman_rho(first: ArrayLike, second: ArrayLike, *, seed: int = 0) -> Estimate:
    """Returns the correlation of ranks (ties take their mean) with its interval."""
    Pairs.of(first, second)  # refuses what cannot be ranked
    ranks = np.stack([rankdata(first), rankdata(second)])

    def weighted(weights: Values | None = None) -> float:
        covariance = np.cov(ranks, aweights=weights, ddof=0)
        scale = np.sqrt(covariance[0, 0] * covariance[1, 1])
        return float(covariance[0, 1] / scale) if scale > 0 else float("nan")

    return with_interval(ranks.shape[1], weighted, seed)


def with_interval(size: int, statistic: Callable[..., float], seed: int) -> Estimate:
    """Returns a weighted statistic and its bootstrap interval over ``size`` architectures."""
    generator = np.random.default_rng(seed)
    draws = generator.multinomial(size, np.full(size, 1 / size), NUM_RESAMPLES).astype(np.float64)
    found = [statistic(weights) for weights in draws]
    low, high = np.nanpercentile(found, [TAIL_PERCENT, 100 - TAIL_PERCENT])
    return Estimate(statistic(), float(low), float(high), size)


def permutation_p_value(first: ArrayLike, second: ArrayLike, *, seed: int = 0) -> float:
    """Returns how often a random order agrees with the second as well as the first does.

    One-sided; the observed order counts among the permutations, so the value is never 0.
    """
    pairs = Pairs.of(first, second)
    generator = np.random.default_rng(seed)
    observed, as_good = pairs.tau(), 1
    for _ in range(NUM_PERMUTATIONS):
        order = generator.permutation(len(pairs.first))
        shuffled = Pairs(pairs.first[np.ix_(order, order)], pairs.second)
        as_good += shuffled.tau() >= observed - 1e-12
    return as_good / (NUM_PERMUTATIONS + 1)
