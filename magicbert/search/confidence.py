"""Which candidates cannot win, at a stated confidence.

All candidates see the same batches, so two of them are compared by their differences batch by
batch: what makes a batch hard for both cancels out. A candidate is given up when a one-sided
paired t-test says that it is worse than the best so far. The architecture of the least expected
loss is given up only if one of its tests against another one errs. There are at most
``(candidates - 1) x looks`` such tests, each with a share of ``1 - confidence``, so it is still
there at the end with at least the stated confidence (Bonferroni). Differences per batch are taken
to be normal, which sums over many tokens nearly are, and batches to be drawn alike.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Sums = NDArray[np.float64]


def cannot_win(loss_sums: Sums, error_rate: float) -> NDArray[np.bool_]:
    """Returns which candidates are worse than the best one.

    Args:
        loss_sums: ``[candidates, batches]``, over the same terms of each batch.
        error_rate: chance that one of these tests errs.
    """
    num_batches = loss_sums.shape[1]
    best = int(np.argmin(loss_sums.sum(axis=1)))
    if num_batches < 2:
        return np.zeros(len(loss_sums), dtype=bool)
    differences = loss_sums - loss_sums[best]
    errors = differences.std(axis=1, ddof=1) / np.sqrt(num_batches)
    bound = float(stats.t.ppf(1 - error_rate, num_batches - 1))
    worse: NDArray[np.bool_] = differences.mean(axis=1) > bound * errors
    return worse


def error_rate_of_test(confidence: float, num_candidates: int, num_looks: int) -> float:
    """Returns the share of ``1 - confidence`` that each test may use up."""
    return (1 - confidence) / max((num_candidates - 1) * num_looks, 1)
