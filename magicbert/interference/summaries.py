"""Same-type against cross-type pairs: two attentions, or an attention and a convolution."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from magicbert.bootstrap import estimate
from magicbert.space.architecture import family_of


def pair_summary(
    matrices: NDArray[np.float64], candidates: Sequence[str]
) -> dict[str, dict[str, Any] | None]:
    """Returns mean cosine and interval over ``same``, ``other`` and ``all`` pairs of candidates.

    Args:
        matrices: ``[samples, C, C]``; the samples are what is resampled.
        candidates: names of the C candidates.

    Returns:
        ``None`` for a kind of pair that the space does not have.
    """
    pairs = list(itertools.combinations(range(len(candidates)), 2))
    is_same = [family_of(candidates[a]) == family_of(candidates[b]) for a, b in pairs]
    chosen = {
        "same": [pair for pair, same in zip(pairs, is_same, strict=True) if same],
        "other": [pair for pair, same in zip(pairs, is_same, strict=True) if not same],
        "all": pairs,
    }
    return {name: summary_of(matrices, some) for name, some in chosen.items()}


def summary_of(
    matrices: NDArray[np.float64], pairs: Sequence[tuple[int, int]]
) -> dict[str, Any] | None:
    """Returns the mean over some pairs with its interval, ``None`` without pairs."""
    if not pairs:
        return None
    rows, columns = np.array(pairs).T
    per_sample = matrices[:, rows, columns].mean(axis=1)
    return dataclasses.asdict(estimate(per_sample))
