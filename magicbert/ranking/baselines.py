"""Rankings that need no supernet: what a score must beat before it says anything.

Every baseline is a score per architecture, lower is better, as losses are.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from magicbert.ranking.table_row import TableRow
from magicbert.space import Architecture

Values = NDArray[np.float64]


def trivial_scores(rows: Sequence[TableRow]) -> dict[str, Values]:
    """Returns ``more parameters``, ``more FLOPs`` and ``more OPERATOR`` for each operator."""
    names = sorted({operator for row in rows for operator in row.architecture})
    counts = operator_counts([row.architecture for row in rows], names)
    scores = {
        "parameters": -np.array([float(row.parameters) for row in rows]),
        "FLOPs": -np.array([float(row.flops) for row in rows]),
    }
    for name, column in zip(names, counts.T, strict=True):
        scores[f"number of {name}"] = -column
    return scores


def operator_counts(architectures: Sequence[Architecture], names: Sequence[str]) -> Values:
    """Returns how often each operator stands in each architecture, ``[architectures, names]``."""
    found = [Counter(architecture) for architecture in architectures]
    return np.array([[count[name] for name in names] for count in found], dtype=np.float64)


def fitted_counts(rows: Sequence[TableRow], losses: Values) -> Values | None:
    """Returns the loss that the numbers of the operators foretell, each left out of its own fit.

    It is no baseline that one has without training; it says how much of the true order the
    numbers of the operators decide, whatever their places. ``None`` for too few architectures.

    Args:
        rows: the architectures.
        losses: of training alone.
    """
    names = sorted({operator for row in rows for operator in row.architecture})
    if len(rows) <= 2 * len(names):
        return None
    # The counts of one depth sum to a constant: the intercept is among them.
    design = operator_counts([row.architecture for row in rows], names)
    hat = design @ np.linalg.pinv(design)
    leverage = np.clip(np.diag(hat), 0, 1 - 1e-9)
    # The residual of a left-out row is its residual over one minus its leverage.
    return np.asarray(losses - (losses - hat @ losses) / (1 - leverage))


def explained_share(losses: Values, groups: Sequence[object]) -> float:
    """Returns the share of the variance of losses that lies between groups (epsilon squared).

    Corrected for the number of groups, so that groups without meaning explain nothing on average;
    NaN where every group has one member, or all losses are equal.
    """
    numbers = {group: number for number, group in enumerate(dict.fromkeys(groups))}
    places = np.array([numbers[group] for group in groups])
    means = np.bincount(places, losses) / np.bincount(places)
    free = len(losses) - len(means)
    total = float(np.var(losses, ddof=1)) if len(losses) > 1 else 0.0
    if free == 0 or total == 0:
        return float("nan")
    within = float(np.sum((losses - means[places]) ** 2)) / free
    return 1 - within / total


def operator_multiset(architecture: Architecture) -> tuple[str, ...]:
    """Returns the operators without their places: equal ones differ in order alone."""
    return tuple(sorted(architecture))


def random_tau_sd(size: int) -> float:
    """Returns the standard deviation of tau of a random order of ``size`` things without ties."""
    return math.sqrt(2 * (2 * size + 5) / (9 * size * (size - 1)))
