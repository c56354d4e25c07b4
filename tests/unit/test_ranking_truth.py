"""The noise ceiling, groups of equal operators, trivial rankings and relations."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import stats

from magicbert.ranking.baselines import (
    explained_share,
    fitted_counts,
    operator_counts,
    operator_multiset,
    random_tau_sd,
    trivial_scores,
)
from magicbert.ranking.ceiling import attainable, noise_ceiling
from magicbert.ranking.correlation import Pairs, kendall_tau
from magicbert.ranking.relations import correlation, relations, without_means
from magicbert.ranking.table_row import TableRow
from magicbert.space import Architecture

NAMES = ["-".join(p) for p in itertools.product(("ffn", "mha2", "conv3"), repeat=4)]
SIZES = {"ffn": 132, "mha2": 66, "conv3": 34}


def rows_of(names: list[str]) -> tuple[TableRow, ...]:
    found = [Architecture.parse(name) for name in names]
    sizes = [sum(SIZES[part] for part in path) for path in found]
    return tuple(TableRow(a, n, 2.0 * n, {}) for a, n in zip(found, sizes, strict=True))


def test_ceiling_of_two_seeds_is_scipys_tau():
    losses = np.random.default_rng(0).normal(size=(50, 1)) + 0.5 * np.random.default_rng(1).normal(
        size=(50, 2)
    )
    found = noise_ceiling(losses)
    assert found.between_seeds.value == pytest.approx(stats.kendalltau(*losses.T).statistic)
    assert found.between_seeds.low < found.between_seeds.value < found.between_seeds.high
    assert (found.num_seeds, found.num_architectures) == (2, 50)
    half = len(losses) // 2
    mixed = noise_ceiling(losses, averaged=[1] * half + [2] * half)
    assert mixed.num_seeds == pytest.approx(4 / 3)
    assert mixed.between_seeds == found.between_seeds
    assert mixed.attainable.value == attainable(found.between_seeds.value, 4 / 3)
    assert found.num_seeds == 2
    assert noise_ceiling(losses[:, :1]) is None
    three = noise_ceiling(np.concatenate([losses, losses[:, :1]], axis=1)).between_seeds.value
    pair = found.between_seeds.value
    assert three == pytest.approx((pair + 1.0 + pair) / 3)


@pytest.mark.parametrize("num_seeds", [2, 3, 5])
@pytest.mark.parametrize("noise", [0.3, 1.0])
def test_what_a_perfect_ranking_reaches_is_what_it_reaches(noise, num_seeds):
    """Many architectures with known expected losses, also through a monotone transformation."""
    generator = np.random.default_rng(7)
    expected = generator.normal(size=1200)
    seeds = expected[:, None] + noise * generator.normal(size=(1200, num_seeds))
    between = stats.kendalltau(seeds[:, 0], seeds[:, 1]).statistic
    reached = stats.kendalltau(expected, seeds.mean(axis=1)).statistic
    assert attainable(between, num_seeds) == pytest.approx(reached, abs=0.03)


def test_ceiling_at_its_ends():
    assert attainable(1.0, 2) == pytest.approx(1.0)
    assert attainable(0.0, 2) == attainable(-0.3, 2) == 0.0
    assert attainable(0.5, 4) > attainable(0.5, 2) > 0.5


def test_tau_within_groups_by_hand():
    # Two groups; the one pair of the first agrees, of the second one of three does not.
    first, second = [1, 2, 10, 11, 12], [5, 6, 1, 3, 2]
    pairs = Pairs.of(first, second, ["a", "a", "b", "b", "b"])
    assert pairs.num_compared == 4
    assert pairs.tau() == pytest.approx((3 - 1) / 4)
    assert np.isnan(Pairs.of(first, second, list("abcde")).tau())


def test_tau_within_groups_does_not_see_what_tells_groups_apart():
    generator = np.random.default_rng(2)
    groups = np.repeat(np.arange(12), 8)
    first, second = groups + generator.normal(size=96) / 9, groups + generator.normal(size=96) / 9
    assert kendall_tau(first, second).value > 0.8
    inside = kendall_tau(first, second, groups=groups.tolist())
    assert inside.low < 0 < inside.high


def test_trivial_scores_are_lower_for_more():
    scores = trivial_scores(rows_of(["ffn-ffn", "ffn-conv3", "conv3-conv3"]))
    assert scores["parameters"].tolist() == [-264, -166, -68]
    assert scores["FLOPs"].tolist() == [-528, -332, -136]
    assert scores["number of conv3"].tolist() == [0, -1, -2]


def test_fitted_counts_foretell_left_out_rows():
    rows, generator = rows_of(NAMES), np.random.default_rng(0)
    losses = np.array([0.3 * row.architecture.operators.count("ffn") for row in rows])
    losses += 0.1 * generator.normal(size=len(rows))
    found = fitted_counts(rows, losses)
    counts = operator_counts([row.architecture for row in rows], ["conv3", "ffn", "mha2"])
    for left_out in (0, 17, 80):
        kept = np.arange(len(rows)) != left_out
        slopes = np.linalg.lstsq(counts[kept], losses[kept], rcond=None)[0]
        assert found[left_out] == pytest.approx(counts[left_out] @ slopes)
    assert fitted_counts(rows[:6], losses[:6]) is None


def test_explained_share():
    groups = [operator_multiset(row.architecture) for row in rows_of(NAMES)]
    assert len(set(groups)) == 15
    by_group = np.array([float(SIZES[group[0]] + 3 * SIZES[group[-1]]) for group in groups])
    assert explained_share(by_group, groups) == pytest.approx(1.0)
    noise = np.random.default_rng(0).normal(size=(200, len(groups)))
    assert np.mean([explained_share(n, groups) for n in noise]) == pytest.approx(0, abs=0.02)
    assert np.isnan(explained_share(by_group[:3], ["a", "b", "c"]))


def test_random_orders_have_the_stated_spread():
    generator = np.random.default_rng(0)
    taus = [Pairs.of(generator.permutation(20), np.arange(20)).tau() for _ in range(2000)]
    assert np.std(taus) == pytest.approx(random_tau_sd(20), rel=0.06)


def test_relations_take_the_means_of_methods_away():
    """Between methods tau rises with the loss, within each it falls."""
    generator = np.random.default_rng(0)
    rows = [
        {"method": f"m{m}", "settings": "default", "interference": None,
         "loss": m + (part := 0.1 * generator.normal()), "tau": 0.2 * m - part}
        for m in range(4) for _ in range(6)
    ]  # fmt: skip
    (found,) = relations(rows)
    assert (found["measure"], found["num_supernets"]) == ("loss", 24)
    assert found["over_all"] > 0.7
    assert found["within_methods"] == pytest.approx(-1.0)
    assert relations(rows[:5]) == []


def test_correlation_is_pearsons():
    pairs = np.random.default_rng(0).normal(size=(20, 2))
    assert correlation(pairs) == pytest.approx(stats.pearsonr(*pairs.T).statistic)
    assert without_means(np.array([1.0, 3.0, 5.0]), ["a", "a", "b"]).tolist() == [-1, 1, 0]
