"""Rank statistics against scipy and against cases made by hand."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from magicbert.ranking.correlation import (
    Pairs,
    kendall_tau,
    permutation_p_value,
    spearman_rho,
)
from magicbert.ranking.top import regret, top_overlap


def noisy_pair(size: int, noise: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    truth = generator.normal(size=size)
    return truth, truth + noise * generator.normal(size=size)


@pytest.mark.parametrize("decimals", [9, 1, 0])  # few decimals make ties
@pytest.mark.parametrize("size", [2, 7, 60])
def test_both_coefficients_are_scipys(size, decimals):
    first, second = (values.round(decimals) for values in noisy_pair(size, 1.0, size))
    wanted = stats.kendalltau(first, second).statistic, stats.spearmanr(first, second).statistic
    found = kendall_tau(first, second).value, spearman_rho(first, second).value
    np.testing.assert_allclose(found, wanted, atol=1e-12)


def test_by_hand():
    # Of six pairs, one is in the other order.
    assert kendall_tau([1, 2, 3, 4], [1, 2, 4, 3]).value == pytest.approx((5 - 1) / 6)
    assert kendall_tau([1, 2, 3], [3, 2, 1]).value == pytest.approx(-1)
    assert np.isnan(Pairs.of([1, 1, 1], [1, 2, 3]).tau())


def test_an_architecture_drawn_twice_is_no_tie():
    pairs = Pairs.of([1, 2, 3], [1, 2, 3])
    assert pairs.tau(np.array([2.0, 1.0, 0.0])) == pytest.approx(1.0)
    assert stats.kendalltau([1, 1, 2], [1, 1, 2]).statistic == pytest.approx(1.0)
    # Naively counted, the pair of a thing with itself would shrink a disagreement too.
    disagreeing = Pairs.of([1, 2, 3, 4], [2, 1, 4, 3])
    assert disagreeing.tau(np.array([1.0, 1, 1, 1])) == pytest.approx(1 / 3)


def test_intervals_cover_the_truth_as_often_as_they_say():
    """Tau of a bivariate normal is 2/pi arcsin(r): 60 draws, binomial bound at 4 sigma."""
    noise = 1.0
    truth = 2 / np.pi * np.arcsin(1 / np.sqrt(1 + noise**2))
    covered = 0
    for seed in range(60):
        estimate = kendall_tau(*noisy_pair(60, noise, 1000 + seed))
        covered += estimate.low <= truth <= estimate.high
    assert covered / 60 >= 0.95 - 4 * np.sqrt(0.95 * 0.05 / 60)


def test_p_values_are_uniform_without_relation_and_small_with_one():
    generator = np.random.default_rng(3)
    values = [
        permutation_p_value(generator.normal(size=12), generator.normal(size=12), seed=i)
        for i in range(25)
    ]
    assert stats.kstest(values, "uniform").pvalue > 1e-3
    assert permutation_p_value(*noisy_pair(30, 0.3, 1)) < 0.01


def test_top_and_regret_by_hand():
    losses, scores = [1.0, 1.5, 2.0, 3.0], [9.0, 7.0, 8.0, 10.0]
    assert top_overlap(scores, losses, 2) == 0.5
    assert regret(scores, losses) == pytest.approx(0.5)
    assert regret(scores, losses, k=3) == pytest.approx(0.0)
    assert top_overlap(losses, losses, 3) == 1.0
    with pytest.raises(ValueError, match=r"k must be in 1\.\.4"):
        top_overlap(scores, losses, 5)


@pytest.mark.parametrize(
    ("first", "second"), [([1], [1]), ([1, 2], [1, 2, 3]), ([1, float("nan")], [1, 2])]
)
def test_what_cannot_be_ranked_is_refused(first, second):
    with pytest.raises(ValueError, match=r"need two|finite"):
        kendall_tau(first, second)
