"""Path samplers against the closed forms of the walk on the Hamming graph H(N, C).

Walkers are independent (one seed each); seeds are fixed, so a pass is a pass for ever. Bounds are
4 sigma or a p-value of 1e-3, as named in each test.
"""

from __future__ import annotations

import itertools
import math
import random
from collections import Counter

import numpy as np
import pytest
from scipy.stats import chisquare

from magicbert.config.sections import SamplingSection
from magicbert.errors import UserError
from magicbert.space import Architecture, SearchSpace
from magicbert.supernet.sampling import MagicTSampler, build_sampler


def space_of(num_layers: int, num_candidates: int) -> SearchSpace:
    return SearchSpace.uniform(num_layers, tuple(f"op{i}" for i in range(num_candidates)))


def first_of(space: SearchSpace) -> Architecture:
    return Architecture(tuple(names[0] for names in space.layers))


def walk(sampler: MagicTSampler, num_steps: int) -> list[Architecture]:
    path = [first_of(sampler.space)]
    for step in range(1, num_steps + 1):
        path.append(sampler.next(step, path[-1]))
    return path


def walkers(space: SearchSpace, num_walkers: int, num_steps: int, num_changes: int = 1):
    return [walk(MagicTSampler(space, seed, num_changes), num_steps) for seed in range(num_walkers)]


def lumped_law(num_layers: int, num_candidates: int, num_steps: int) -> np.ndarray:
    """Exact law of the distance from the start after some steps of the non-lazy walk, k=1."""
    N, C = num_layers, num_candidates
    law = np.zeros(N + 1)
    law[0] = 1.0
    for _ in range(num_steps):
        after = np.zeros(N + 1)
        for d in range(N + 1):
            if d < N:
                after[d + 1] += law[d] * (N - d) / N
            if d > 0:
                after[d - 1] += law[d] * d / (N * (C - 1))
            after[d] += law[d] * d * (C - 2) / (N * (C - 1))
        law = after
    return law


@pytest.mark.parametrize("num_changes", [1, 2, 5, 24])
def test_consecutive_paths_differ_in_exactly_k_layers(num_changes):
    steps = walk(MagicTSampler(space_of(24, 4), 7, num_changes), 300)
    assert {a.distance(b) for a, b in itertools.pairwise(steps)} == {num_changes}


@pytest.mark.parametrize(("num_candidates", "num_changes"), [(6, 1), (4, 3), (2, 1), (2, 4)])
def test_return_rate_follows_the_eigenvalue(num_candidates, num_changes):
    """E[share of layers equal to the start] = 1/C + (1 - 1/C) lambda^t, within 4 sigma."""
    N, C, k = 12, num_candidates, num_changes
    is_lazy = C == 2
    eigenvalue = 1 - k / N if is_lazy else 1 - k * C / (N * (C - 1))
    paths = walkers(space_of(N, C), num_walkers=1000, num_steps=12, num_changes=k)
    for t in (1, 4, 12):
        shares = np.array([1 - path[t].distance(path[0]) / N for path in paths])
        expected = 1 / C + (1 - 1 / C) * eigenvalue**t
        sigma = shares.std(ddof=1) / math.sqrt(len(shares))
        assert abs(shares.mean() - expected) <= 4 * sigma + 1e-12, (t, shares.mean(), expected)


def test_distance_histogram_follows_the_lumped_chain():
    N, C = 12, 6
    paths = walkers(space_of(N, C), num_walkers=1500, num_steps=24)
    for t in (3, 10, 24):
        counts = np.bincount([path[t].distance(path[0]) for path in paths], minlength=N + 1)
        expected = lumped_law(N, C, t) * len(paths)
        assert counts[expected == 0].sum() == 0
        often = expected >= 5
        observed = np.append(counts[often], counts[~often].sum())
        wanted = np.append(expected[often], expected[~often].sum())
        if wanted[-1] == 0:
            observed, wanted = observed[:-1], wanted[:-1]
        assert chisquare(observed, wanted).pvalue > 1e-3, t


def test_walk_becomes_uniform_on_a_small_space():
    """N=3, C=3: total variation is below 0.01 from t=8 on, and far from 0 at t=1."""
    space = space_of(3, 3)
    paths = walkers(space, num_walkers=2700, num_steps=14)

    def pvalue(t: int) -> float:
        counts = Counter(path[t] for path in paths)
        return float(chisquare([counts[a] for a in space.enumerate()]).pvalue)

    assert pvalue(1) < 1e-9
    assert all(pvalue(t) > 1e-3 for t in (11, 12, 14))


@pytest.mark.parametrize("method", ["uniform", "magic-t", "strict-fair"])
def test_every_operator_is_equally_likely_in_every_layer(method):
    space, draws = space_of(4, 4), 2000
    sampler = build_sampler(SamplingSection(method=method), space, seed=3)
    if method == "uniform":
        paths = [sampler.next(step, None) for step in range(draws)]
    elif method == "strict-fair":  # the paths of a round are drawn together: one of each
        paths = [sampler.next(4 * step + step % 4, None) for step in range(draws)]
    else:  # steps of one walk are correlated: independent walkers, well past the mixing time
        paths = [walk(MagicTSampler(space, seed, 1), 24)[-1] for seed in range(draws)]
    for layer, names in enumerate(space.layers):
        counts = Counter(path[layer] for path in paths)
        assert chisquare([counts[name] for name in names]).pvalue > 1e-3


@pytest.mark.parametrize("section", [
    SamplingSection(method="uniform"), SamplingSection(method="magic-t", num_changes=3),
    SamplingSection(method="strict-fair"),
])  # fmt: skip
def test_a_path_depends_on_seed_step_and_previous_path_alone(section):
    space = space_of(6, 4)
    sampler = build_sampler(section, space, seed=11)
    previous = space.sample(np.random.default_rng(0))
    steps = list(range(50))
    in_order = [sampler.next(step, previous) for step in steps]
    random.Random(1).shuffle(steps)
    np.random.seed(99)
    again = {step: build_sampler(section, space, seed=11).next(step, previous) for step in steps}
    assert in_order == [again[step] for step in range(50)]
    assert in_order != [build_sampler(section, space, 12).next(s, previous) for s in range(50)]
    assert len(set(in_order)) > 30


def test_strict_fairness_takes_each_candidate_once_in_every_round():
    """Layers of one to six candidates: each has rounds of its own length, with exact counts."""
    space = SearchSpace(tuple(tuple(f"op{i}" for i in range(size)) for size in (4, 1, 6, 2, 3, 4)))
    sampler = build_sampler(SamplingSection(method="strict-fair"), space, seed=5)
    paths = [sampler.next(step, None) for step in range(240)]
    for layer, names in enumerate(space.layers):
        for start in range(0, len(paths), len(names)):
            turns = [path[layer] for path in paths[start : start + len(names)]]
            assert sorted(turns) == sorted(names)
    # Layers of one size are permuted on their own, and so are the rounds of one layer.
    first, last = ([path[layer] for path in paths] for layer in (0, 5))
    assert first != last
    assert len({tuple(first[start : start + 4]) for start in range(0, 240, 4)}) > 15


def test_first_path_is_drawn_from_the_whole_space():
    space = space_of(2, 3)
    sampler = MagicTSampler(space, 0, 1)
    assert {sampler.next(step, None) for step in range(200)} == set(space.enumerate())


def test_layers_without_a_choice_are_left_alone():
    space = SearchSpace((("a", "b", "c"), ("a",), ("a", "b", "c")))
    steps = walk(MagicTSampler(space, 0, 2), 50)
    assert all(a.distance(b) == 2 and a[1] == "a" for a, b in itertools.pairwise(steps))


def test_a_layer_with_two_operators_makes_the_walk_lazy():
    """Without it, two-operator layers alternate: the start could recur at even steps only."""
    space = space_of(3, 2)
    steps = walk(MagicTSampler(space, 0, 1), 300)
    distances = Counter(a.distance(b) for a, b in itertools.pairwise(steps))
    assert set(distances) == {0, 1}
    returns = {t % 2 for t, path in enumerate(steps) if path == steps[0]}
    assert returns == {0, 1}


def test_a_space_of_one_path_stays_there():
    only = Architecture(("a", "b"))
    assert MagicTSampler(SearchSpace.of(only), 0, 1).next(5, only) == only


def test_more_changes_than_open_layers_are_refused():
    with pytest.raises(UserError, match=r"num_changes.*1\.\.2.*got 3"):
        MagicTSampler(SearchSpace((("a", "b"), ("a", "b"), ("a",))), 0, 3)


def test_a_previous_path_of_another_space_is_refused():
    with pytest.raises(UserError, match="layer 1"):
        MagicTSampler(space_of(2, 3), 0, 1).next(1, Architecture(("op0", "other")))
