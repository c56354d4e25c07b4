"""Means over seeds, paired differences and the number of seeds, against scipy and by hand."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from magicbert.bootstrap import estimate, mean_estimate
from magicbert.ranking.seeds import (
    half_width,
    holm,
    over_seeds,
    paired_difference,
    sd_upper_limit,
    seeds_needed,
)

TAUS = [0.46, 0.28, 0.44, 0.51]


def test_interval_of_a_mean_is_scipys():
    found = over_seeds(TAUS)
    wanted = stats.t.interval(0.95, 3, loc=np.mean(TAUS), scale=stats.sem(TAUS))
    np.testing.assert_allclose((found.low, found.high), wanted)
    assert found.sd == pytest.approx(np.std(TAUS, ddof=1))
    assert found.half_width == pytest.approx(wanted[1] - np.mean(TAUS))
    assert min(TAUS) <= found.bootstrap_low < found.mean < found.bootstrap_high <= max(TAUS)


def test_the_bootstrap_of_a_mean_is_the_general_one():
    assert mean_estimate(TAUS, seed=3).low == pytest.approx(estimate(TAUS, seed=3).low)
    assert mean_estimate(TAUS, seed=3).high == pytest.approx(estimate(TAUS, seed=3).high)


def test_one_seed_has_no_interval():
    found = over_seeds([0.4])
    assert (found.mean, found.low, found.half_width, found.num_seeds) == (0.4, None, None, 1)


def test_paired_test_is_scipys_and_takes_common_seeds_only():
    method = {0: 0.5, 1: 0.3, 2: 0.6, 3: 0.55, 9: 99.0}
    baseline = dict(enumerate(TAUS))
    found = paired_difference(method, baseline)
    wanted = stats.ttest_rel([0.5, 0.3, 0.6, 0.55], TAUS)
    assert found.seeds == (0, 1, 2, 3)
    assert found.p_value == pytest.approx(wanted.pvalue)
    interval = wanted.confidence_interval(0.95)
    np.testing.assert_allclose((found.difference.low, found.difference.high), interval)
    assert paired_difference({1: 0.0}, {2: 0.0}) is None
    assert paired_difference({1: 0.5}, {1: 0.25}).difference.mean == 0.25
    assert paired_difference({1: 0.5, 2: 0.5}, {1: 0.5, 2: 0.5}).p_value == 1.0


@pytest.mark.parametrize("sd", [0.01, 0.05, 0.1, 0.3])
def test_seeds_needed_is_the_first_number_whose_interval_is_narrow_enough(sd):
    count = seeds_needed(sd)
    assert half_width(sd, count) <= 0.05
    assert count == 2 or half_width(sd, count - 1) > 0.05
    # Close to the normal rule (1.96 sd / 0.05)^2, above it for Student's quantile.
    normal = (1.96 * sd / 0.05) ** 2
    assert normal - 1 <= count <= normal + 4


def test_planned_seeds_keep_the_promise_as_often_as_the_limit_says():
    """Of pilots of 6, the upper 80% limit of the standard deviation covers the truth in 80%."""
    generator = np.random.default_rng(0)
    pilots = generator.normal(scale=0.1, size=(4000, 6)).std(axis=1, ddof=1)
    covered = np.mean([sd_upper_limit(sd, 6) >= 0.1 for sd in pilots])
    assert covered == pytest.approx(0.8, abs=4 * np.sqrt(0.8 * 0.2 / 4000))


def test_holm_by_hand():
    # Holm (1979): times 3, 2, 1 in rising order, never falling again.
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []
