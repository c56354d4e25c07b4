"""The lumped chain against the whole graph, against known times, and the bounds against it."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy.stats import chisquare

from magicbert.errors import UserError
from magicbert.space import Architecture, SearchSpace
from magicbert.supernet.mixing import HammingWalk, LayerClass
from magicbert.supernet.mixing_bounds import (
    another_operator_bound,
    coupling_bound,
    eigenvalues,
    printed_bound,
    spectral_bound,
)
from magicbert.supernet.sampling import MagicTSampler

STEPS = np.arange(400)


def space_of(*sizes: int) -> SearchSpace:
    return SearchSpace(tuple(tuple(f"op{i}" for i in range(size)) for size in sizes))


def whole_graph(sizes: tuple[int, ...], num_changes: int, is_lazy: bool) -> np.ndarray:
    """The transition matrix over all paths, written down from the walk's definition."""
    paths = list(itertools.product(*map(range, sizes)))
    index = {path: number for number, path in enumerate(paths)}
    matrix = np.zeros((len(paths), len(paths)))
    choices = list(itertools.combinations(range(len(sizes)), num_changes))
    for path in paths:
        for layers in choices:
            options = [[o for o in range(sizes[i]) if is_lazy or o != path[i]] for i in layers]
            chance = 1 / len(choices) / math.prod(map(len, options))
            for drawn in itertools.product(*options):
                after = list(path)
                for layer, operator in zip(layers, drawn, strict=True):
                    after[layer] = operator
                matrix[index[path], index[tuple(after)]] += chance
    return matrix


@pytest.mark.parametrize(
    ("sizes", "num_changes"),
    [((3, 3, 3), 1), ((3, 3, 3), 2), ((4, 4, 4, 4), 3), ((3, 4, 4), 1), ((2, 3, 2, 4), 2)],
)
def test_total_variation_is_that_of_the_whole_graph(sizes, num_changes):
    walk = HammingWalk.of(space_of(*sizes), num_changes)
    assert walk.is_lazy == (2 in sizes)
    matrix = whole_graph(sizes, num_changes, walk.is_lazy)
    law = np.zeros(len(matrix))
    law[0] = 1.0
    exact = []
    for _ in range(12):
        exact.append(np.abs(law - 1 / len(law)).sum() / 2)
        law = law @ matrix
    np.testing.assert_allclose(walk.total_variation(11), exact, atol=1e-12)


@pytest.mark.parametrize(
    ("num_layers", "num_candidates", "is_lazy", "times"),
    [
        (24, 4, False, (46, 62, 74, 102, 142)),
        (24, 4, True, (61, 83, 99, 137, 191)),
        (12, 6, False, (24, 33, 39, 55, 76)),
        (12, 6, True, (29, 40, 47, 66, 92)),
        (21, 7, False, (50, 67, 79, 107, 147)),
        (3, 3, False, (3, 4, 5, 8, 11)),
    ],
)
def test_mixing_times_of_the_published_spaces(num_layers, num_candidates, is_lazy, times):
    walk = HammingWalk((LayerClass(num_layers, num_candidates),), is_lazy=is_lazy)
    assert tuple(walk.mixing_time(distance) for distance in (0.25, 0.1, 0.05, 0.01, 0.001)) == times


def test_two_operators_per_layer_never_mix_unless_the_walk_is_lazy():
    strict = HammingWalk((LayerClass(6, 2),))
    assert strict.is_periodic
    assert strict.total_variation(200).min() >= 0.5 - 1e-12
    assert strict.mixing_time(0.1) is None
    lazy = HammingWalk.of(space_of(2, 2, 2, 2, 2, 2))
    assert lazy.is_lazy
    assert lazy.mixing_time(0.01) is not None


@pytest.mark.parametrize(("num_layers", "num_candidates"), [(24, 4), (12, 6), (12, 4), (3, 3)])
def test_corrected_bounds_hold_and_the_printed_one_does_not(num_layers, num_candidates):
    part = (LayerClass(num_layers, num_candidates),)
    lazy = HammingWalk(part, is_lazy=True).total_variation(399)
    other = HammingWalk(part).total_variation(399)
    tiny = 1e-12
    assert (lazy <= coupling_bound(num_layers, STEPS) + tiny).all()
    assert (coupling_bound(num_layers, STEPS) <= num_layers * np.exp(-STEPS / num_layers)).all()
    assert (other <= another_operator_bound(num_layers, num_candidates, STEPS) + tiny).all()
    for curve, is_lazy in ((lazy, True), (other, False)):
        bound = spectral_bound(num_layers, num_candidates, STEPS, is_lazy=is_lazy)
        assert (curve <= bound + tiny).all()
    assert (lazy > printed_bound(num_layers, STEPS))[: 2 * num_layers].all()
    assert other[0] > printed_bound(num_layers, STEPS)[0]


@pytest.mark.parametrize(("num_changes", "is_lazy"), [(1, False), (2, False), (3, True)])
def test_eigenvalues_are_those_of_the_whole_graph(num_changes, is_lazy):
    matrix = whole_graph((3, 3, 3, 3), num_changes, is_lazy)
    values = eigenvalues(4, 3, num_changes, is_lazy)
    expected = sorted(
        value for j, value in enumerate(values) for _ in range(math.comb(4, j) * 2**j)
    )
    np.testing.assert_allclose(sorted(np.linalg.eigvalsh(matrix)), expected, atol=1e-12)


def test_the_sampler_walks_as_the_theory_says():
    """2,000 walkers, chi-square of the distance from the start; a wrong k is found out."""
    space, num_steps = space_of(*(4,) * 6), 3
    start = Architecture(("op0",) * 6)
    counts = np.zeros(7)
    for seed in range(2000):
        sampler, path = MagicTSampler(space, seed, 2), start
        for step in range(1, num_steps + 1):
            path = sampler.next(step, path)
        counts[sum(a != b for a, b in zip(path, start, strict=True))] += 1

    def p_value(num_changes: int) -> float:
        law = HammingWalk.of(space, num_changes).laws(num_steps)[-1]
        expected = 2000 * law
        kept = expected >= 5
        observed = np.append(counts[kept], counts[~kept].sum())
        wanted = np.append(expected[kept], expected[~kept].sum())
        used = wanted > 0
        return float(
            chisquare(observed[used], wanted[used] * observed[used].sum() / wanted.sum()).pvalue
        )

    assert p_value(2) > 1e-3
    assert p_value(1) < 1e-6


def test_what_cannot_be_followed_is_said():
    with pytest.raises(UserError, match=r"num_changes: must be in 1\.\.3"):
        HammingWalk.of(space_of(3, 3, 3, 1), 4)
    with pytest.raises(UserError, match="kinds of layers"):
        HammingWalk(tuple(LayerClass(9, size) for size in (3, 4, 5, 6)))
