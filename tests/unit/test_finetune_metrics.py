"""Our metrics against scikit-learn and scipy, degenerate cases included."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics as sklearn_metrics

from magicbert.finetune.metrics import METRICS, mean_ranks

CLASSES = {
    "accuracy": sklearn_metrics.accuracy_score,
    "f1": lambda labels, predictions: sklearn_metrics.f1_score(
        labels, predictions, zero_division=0.0
    ),
    "matthews": sklearn_metrics.matthews_corrcoef,
}
CORRELATIONS = {"pearson": stats.pearsonr, "spearman": stats.spearmanr}


def class_columns() -> list[tuple[np.ndarray, np.ndarray]]:
    generator = np.random.default_rng(0)
    columns = [
        (generator.integers(0, 2, rows), generator.integers(0, 2, rows)) for rows in (1, 2, 7, 500)
    ]
    mixed = np.array([0, 1, 1, 0, 1, 0])
    kinds = (np.zeros(6), np.ones(6), mixed)
    columns += [(first, second) for first in kinds for second in kinds]
    columns.append((1 - mixed, mixed))
    return columns


@pytest.mark.parametrize("name", CLASSES)
@pytest.mark.parametrize(("predictions", "labels"), class_columns())
def test_classes_equal_scikit_learn(name: str, predictions: np.ndarray, labels: np.ndarray) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = CLASSES[name](labels, predictions)
    value = METRICS[name](predictions.astype(np.float64), labels.astype(np.float64))
    assert value == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("name", CORRELATIONS)
@pytest.mark.parametrize("decimals", [0, 1, 12])
def test_correlations_equal_scipy(name: str, decimals: int) -> None:
    generator = np.random.default_rng(decimals)
    labels = np.round(generator.uniform(0, 5, 300), decimals)
    predictions = np.round(labels + generator.normal(0, 2, 300), decimals)
    expected = CORRELATIONS[name](predictions, labels).statistic
    assert METRICS[name](predictions, labels) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("name", CORRELATIONS)
def test_correlation_with_a_constant_counts_as_zero(name: str) -> None:
    constant = np.full(50, 0.1)
    labels = np.linspace(0, 5, 50)
    assert METRICS[name](constant, labels) == 0.0
    assert METRICS[name](labels, constant) == 0.0


@pytest.mark.parametrize("name", CORRELATIONS)
def test_correlation_stays_in_bounds_for_large_offsets(name: str) -> None:
    labels = 1e6 + np.linspace(0, 1e-3, 40)
    assert METRICS[name](labels, labels) == pytest.approx(1.0, abs=1e-9)
    assert METRICS[name](-labels, labels) >= -1.0


def test_ranks_equal_scipy() -> None:
    values = np.array([3.0, 1.0, 3.0, 2.0, 2.0, 2.0, -5.0])
    assert mean_ranks(values).tolist() == stats.rankdata(values).tolist()
