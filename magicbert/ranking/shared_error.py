"""What the supernets of one method get wrong in common, and what noise between them hides.

The mean of the scores of several supernets has less of the noise between seeds. If it ranks no
better than each of them, what they lack is an error that all of them share.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from magicbert.ranking.baselines import operator_counts
from magicbert.ranking.correlation import kendall_tau
from magicbert.ranking.fidelity import FEWEST, Truth, figure
from magicbert.ranking.study_rows import SupernetRow
from magicbert.space import Architecture


def shared_errors(truth: Truth, supernets: Sequence[SupernetRow]) -> list[dict[str, Any]]:
    """Returns, per method and settings, how the mean scores of its supernets rank the truth.

    Args:
        truth: losses of training alone.
        supernets: of every method, settings and seed.
    """
    found = []
    for variant in dict.fromkeys(row.variant for row in supernets):
        scores = mean_scores([row for row in supernets if row.variant == variant])
        part, means = truth.beside(scores)
        if len(part) >= FEWEST:
            found.append({
                "method": variant[0],
                "settings": variant[1],
                "num_seeds": sum(row.variant == variant for row in supernets),
                **figure("tau", kendall_tau(means, part.losses)),
                "worths": operator_worths([row.architecture for row in part.rows], means),
            })  # fmt: skip
    return found


def mean_scores(supernets: Sequence[SupernetRow]) -> dict[Architecture, float]:
    """Returns the mean score of every architecture that each of the supernets has scored."""
    common = set.intersection(*(set(row.scores) for row in supernets))
    return {path: float(np.mean([row.scores[path] for row in supernets])) for path in common}


def operator_worths(
    architectures: Sequence[Architecture], losses: Sequence[float] | np.ndarray[Any, Any]
) -> dict[str, float] | None:
    """Returns how much loss a layer of each operator adds, against the mean operator.

    It is the linear fit of the losses to the numbers of the operators, in nats a layer; ``None``
    where the architectures do not determine it.

    Args:
        architectures: of one depth.
        losses: one per architecture.
    """
    names = sorted({name for path in architectures for name in path})
    counts = operator_counts(architectures, names)
    if np.linalg.matrix_rank(counts) < len(names):
        return None
    worths = np.linalg.lstsq(counts, np.asarray(losses, dtype=np.float64), rcond=None)[0]
    return dict(zip(names, (worths - worths.mean()).tolist(), strict=True))
