"""The noise ceiling: how well any ranking could agree with losses that have seeds of their own.

Another training of the same architectures gives another order. Kendall's tau between two seeds is
measured; what a *perfect* ranking (of the expected losses) would reach against the mean of m seeds
follows from it under one assumption: expected losses and noise are normal up to a monotone
transformation of the losses. Then tau and the correlation r of two seeds are one and the same
thing, ``r = sin(pi tau / 2)``; the mean of m seeds has reliability ``R = m r / (1 + (m - 1) r)``
(Spearman and Brown), and correlates with the expected losses by ``sqrt(R)``. Where architectures
have different numbers of seeds, the noise that is left is on average that of their harmonic mean.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from statistics import harmonic_mean

import numpy as np
from numpy.typing import NDArray

from magicbert.bootstrap import Estimate
from magicbert.ranking.correlation import Pairs, Values, with_interval


@dataclass(frozen=True, slots=True)
class Ceiling:
    """How well losses agree with themselves.

    Attributes:
        between_seeds: tau between two seeds, mean over all pairs of seeds.
        attainable: tau of a perfect ranking against the mean of the seeds (derived, see above).
        num_seeds: seeds of the mean; of different numbers the harmonic mean.
        num_architectures: architectures that have every seed.
    """

    between_seeds: Estimate
    attainable: Estimate
    num_seeds: float
    num_architectures: int


def noise_ceiling(
    losses: NDArray[np.float64],
    *,
    groups: Sequence[Hashable] | None = None,
    averaged: Sequence[int] = (),
    seed: int = 0,
) -> Ceiling | None:
    """Returns the ceiling; ``None`` for fewer than two seeds or three architectures.

    Args:
        losses: of training alone, ``[architectures, seeds]``.
        groups: one value per architecture; pairs of different groups are left out, so that the
            ceiling is that of tau within groups.
        averaged: seeds behind each loss that is ranked against; empty = all of them, everywhere.
        seed: of the resampling of architectures.
    """
    size, num_seeds = losses.shape
    if num_seeds < 2 or size < 3:
        return None
    pairs = [Pairs.of(losses[:, i], losses[:, j], groups) for i, j in all_pairs(num_seeds)]

    def between(weights: Values) -> Values:
        return np.asarray(np.mean([pair.taus(weights) for pair in pairs], axis=0))

    found = with_interval(size, between, seed)
    mean = harmonic_mean(averaged) if averaged else num_seeds
    value, low, high = (attainable(tau, mean) for tau in (found.value, found.low, found.high))
    return Ceiling(found, Estimate(value, low, high, size), mean, size)


def all_pairs(count: int) -> itertools.combinations[tuple[int, int]]:
    """Returns every two of the seeds."""
    return itertools.combinations(range(count), 2)


def attainable(tau: float, num_seeds: float) -> float:
    """Returns tau of a perfect ranking against the mean of seeds that agree by ``tau``.

    Args:
        tau: between two seeds; at most 0 = the losses hold nothing but noise.
        num_seeds: seeds of the mean.
    """
    if not tau > 0:
        return 0.0
    single = math.sin(math.pi / 2 * tau)
    reliability = num_seeds * single / (1 + (num_seeds - 1) * single)
    return 2 / math.pi * math.asin(math.sqrt(reliability))
