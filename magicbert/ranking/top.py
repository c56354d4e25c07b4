"""What a ranking is for: are its first choices good ones?"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray


def top_overlap(scores: ArrayLike, losses: ArrayLike, k: int) -> float:
    """Returns which share of the k best by true loss is among the k best by score.

    Args:
        scores: lower is better, such as losses with inherited weights.
        losses: of the architectures trained alone; lower is better.
        k: size of both choices.
    """
    chosen, best = first_k(scores, k), first_k(losses, k)
    return len(set(chosen.tolist()) & set(best.tolist())) / k


def regret(scores: ArrayLike, losses: ArrayLike, k: int = 1) -> float:
    """Returns how much worse the best of the k first choices is than the best of all, in loss.

    Args:
        scores: lower is better.
        losses: of the architectures trained alone; lower is better.
        k: architectures that one would train to pick from.
    """
    truth = np.asarray(losses, dtype=np.float64)
    return float(truth[first_k(scores, k)].min() - truth.min())


def first_k(values: ArrayLike, k: int) -> NDArray[np.int64]:
    """Returns the indices of the k lowest values; of equal ones the first.

    Raises:
        ValueError: there are fewer than k.
    """
    numbers = np.asarray(values, dtype=np.float64)
    if not 1 <= k <= len(numbers):
        raise ValueError(f"k must be in 1..{len(numbers)}, got {k}")
    return np.argsort(numbers, kind="stable")[:k]
