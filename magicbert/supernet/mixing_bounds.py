"""Bounds on how far MAGIC-T's walk is from uniform after t steps, and its eigenvalues.

N layers hold C candidates each. The bound that is printed with the method, ``exp(-t/N - ln N)``,
has a sign error: at t = 0 it gives 1/N where the distance is ``1 - C^-N``. The coupling argument
that it rests on gives ``exp(-t/N + ln N)``.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Curve = NDArray[np.float64]
Steps = NDArray[np.int64]


def coupling_bound(num_layers: int, steps: Steps) -> Curve:
    """Returns ``N (1 - 1/N)^t``, which bounds the lazy walk of k = 1 (coupon collector).

    It is at most ``exp(-t/N + ln N)``: the corrected form of the printed bound.
    """
    return np.asarray(num_layers * (1 - 1 / num_layers) ** steps)


def printed_bound(num_layers: int, steps: Steps) -> Curve:
    """Returns ``exp(-t/N - ln N)``, the printed bound, which does not hold."""
    return np.exp(-steps / num_layers - math.log(num_layers))


def another_operator_bound(num_layers: int, num_candidates: int, steps: Steps) -> Curve:
    """Returns the bound of the walk that draws *another* operator, k = 1 and C >= 3.

    ``N (1 - 1/C) (1 - (C - 2) / ((C - 1) N))^t``.
    """
    rate = 1 - (num_candidates - 2) / ((num_candidates - 1) * num_layers)
    return np.asarray(num_layers * (1 - 1 / num_candidates) * rate**steps)


def eigenvalues(num_layers: int, num_candidates: int, num_changes: int, is_lazy: bool) -> Curve:
    """Returns the walk's eigenvalues for j = 0..N, ``[N + 1]``.

    They are Krawtchouk polynomials of k, each of multiplicity ``binom(N, j) (C - 1)^j``.
    """
    values = np.zeros(num_layers + 1)
    factor = 0.0 if is_lazy else -1 / (num_candidates - 1)
    for j in range(num_layers + 1):
        values[j] = sum(
            math.comb(j, i)
            * math.comb(num_layers - j, num_changes - i)
            / math.comb(num_layers, num_changes)
            * (factor**i if i else 1.0)
            for i in range(min(j, num_changes) + 1)
            if num_changes - i <= num_layers - j
        )
    return values


def spectral_bound(
    num_layers: int,
    num_candidates: int,
    steps: Steps,
    num_changes: int = 1,
    *,
    is_lazy: bool = False,
) -> Curve:
    """Returns ``1/2 sqrt(sum_j binom(N, j) (C - 1)^j lambda_j^(2t))``, j >= 1; always holds."""
    values = eigenvalues(num_layers, num_candidates, num_changes, is_lazy)[1:]
    weights = np.array(
        [math.comb(num_layers, j) * (num_candidates - 1) ** j for j in range(1, num_layers + 1)],
        dtype=np.float64,
    )
    powers = np.abs(values)[None, :] ** (2 * steps[:, None])
    return np.asarray(np.sqrt(powers @ weights) / 2)
