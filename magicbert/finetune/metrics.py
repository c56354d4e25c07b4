"""The metrics of GLUE, as small functions of predictions and labels.

A value that is not defined, such as the correlation with constant predictions, counts as 0: a
collapsed model must rank last, and records hold no NaN.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]


def accuracy(predictions: Values, labels: Values) -> float:
    """Returns the share of equal entries."""
    return float(np.mean(predictions == labels))


def f1(predictions: Values, labels: Values) -> float:
    """Returns the F1 of class 1 in a task of two classes."""
    hits = np.sum((predictions == 1) & (labels == 1))
    return ratio(2 * hits, np.sum(predictions == 1) + np.sum(labels == 1))


def matthews(predictions: Values, labels: Values) -> float:
    """Returns Matthews' correlation coefficient of two classes."""
    return pearson((predictions == 1).astype(np.float64), (labels == 1).astype(np.float64))


def pearson(predictions: Values, labels: Values) -> float:
    """Returns the linear correlation."""
    first = predictions - np.mean(predictions)
    second = labels - np.mean(labels)
    # A constant column leaves rounding errors after the mean is taken off, not exact zeros.
    if np.ptp(predictions) == 0 or np.ptp(labels) == 0:
        return 0.0
    value = ratio(np.dot(first, second), float(np.linalg.norm(first) * np.linalg.norm(second)))
    return min(1.0, max(-1.0, value))


def spearman(predictions: Values, labels: Values) -> float:
    """Returns the correlation of the ranks, ties sharing their mean rank."""
    return pearson(mean_ranks(predictions), mean_ranks(labels))


def mean_ranks(values: Values) -> Values:
    """Returns ranks from 1, equal values sharing the mean of theirs."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    ranks: Values = (last - (counts - 1) / 2)[inverse]
    return ranks


def ratio(numerator: float, denominator: float) -> float:
    """Returns a quotient, 0 where it is not defined."""
    return float(numerator / denominator) if denominator else 0.0


METRICS: Mapping[str, Callable[[Values, Values], float]] = {
    "accuracy": accuracy,
    "f1": f1,
    "matthews": matthews,
    "pearson": pearson,
    "spearman": spearman,
}
