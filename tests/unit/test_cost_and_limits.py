"""Costs add up; what keeps limits is counted, listed and drawn exactly (against brute force)."""

from __future__ import annotations

from collections import Counter
from typing import ClassVar

import numpy as np
import pytest
from scipy.stats import chisquare

from magicbert.errors import UserError
from magicbert.space import Architecture, Cost, CostModel, Limits, SearchSpace
from magicbert.space.feasible import FeasiblePaths

SPACE = SearchSpace.uniform(5, ("a", "b", "c"))
MODEL = CostModel(
    {"a": Cost(10, 300.0), "b": Cost(25, 100.0), "c": Cost(31, 200.0)}, Cost(1000, 50.0)
)


def brute_force(limits: Limits) -> set[Architecture]:
    return {a for a in SPACE.enumerate() if limits.admits(MODEL.cost(a))}


def random_limits(generator: np.random.Generator) -> Limits:
    low, high = sorted(int(x) for x in generator.integers(1040, 1160, 2))
    flops = float(generator.integers(500, 1600))
    keep = generator.random(3) < 0.6
    return Limits(high * int(keep[0]), low * int(keep[1]), flops * float(keep[2]))


def test_costs_add_up_and_split_by_operator():
    architecture = Architecture(("a", "c", "a", "b", "c"))
    assert MODEL.cost(architecture) == Cost(1000 + 107, 50.0 + 1100.0)
    split = MODEL.by_operator(architecture)
    assert split == {"a": Cost(20, 600.0), "c": Cost(62, 400.0), "b": Cost(25, 100.0)}
    assert sum(split.values(), start=MODEL.fixed) == MODEL.cost(architecture)


def test_range_bounds_every_architecture():
    costs = [MODEL.cost(a) for a in SPACE.enumerate()]
    low, high = MODEL.range(SPACE)
    assert (low.parameters, high.parameters) == (
        min(c.parameters for c in costs), max(c.parameters for c in costs),
    )  # fmt: skip
    assert (low.flops, high.flops) == (min(c.flops for c in costs), max(c.flops for c in costs))


def test_an_operator_without_a_cost_is_named():
    with pytest.raises(UserError, match=r"'d' has no known cost; known: a, b, c"):
        MODEL.cost(Architecture(("d",)))


def test_limits_are_inclusive_and_zero_means_none():
    cost = Cost(100, 7.0)
    assert Limits().admits(cost)
    assert not Limits()
    assert Limits(max_parameters=100, min_parameters=100, max_flops=7.0).admits(cost)
    assert not Limits(max_parameters=99).admits(cost)
    assert not Limits(min_parameters=101).admits(cost)
    assert not Limits(max_flops=6.9).admits(cost)


def test_feasible_paths_equal_brute_force():
    generator = np.random.default_rng(0)
    sizes = set()
    for _ in range(60):
        limits = random_limits(generator)
        paths, expected = FeasiblePaths(SPACE, MODEL, limits), brute_force(limits)
        assert paths.is_exact
        assert paths.count() == len(expected)
        listed = list(paths.enumerate())
        assert len(listed) == len(expected)
        assert set(listed) == expected
        number = int(generator.integers(1, 40))
        drawn = paths.draw(number, generator)
        assert len(drawn) == len(set(drawn)) == min(number, len(expected))
        assert set(drawn) <= expected
        sizes.add(len(expected))
    assert {0, len(list(SPACE.enumerate()))} < sizes | {0}  # from nothing to everything
    assert len(sizes) > 10


def test_draws_are_uniform_over_what_is_feasible():
    limits = Limits(max_parameters=1110, min_parameters=1090, max_flops=1100.0)
    paths = FeasiblePaths(SPACE, MODEL, limits)
    expected = brute_force(limits)
    assert 20 < len(expected) < 150
    counts: Counter[Architecture] = Counter()
    generator = np.random.default_rng(5)
    for _ in range(3000):  # one at a time: the walk back through the costs, not the listing
        counts[paths._draw_one(generator)] += 1
    assert set(counts) == expected
    assert chisquare(list(counts.values())).pvalue > 1e-3


def test_the_same_generator_gives_the_same_draws():
    paths = FeasiblePaths(SearchSpace.uniform(12, ("a", "b", "c")), MODEL, Limits(1250))
    first, second = (paths.draw(50, np.random.default_rng(9)) for _ in range(2))
    assert first == second
    assert len(first) == 50


def test_nothing_feasible_names_the_nearest_and_its_cost():
    for limits in (Limits(max_parameters=1049), Limits(min_parameters=1156), Limits(max_flops=549)):
        nearest = min(SPACE.enumerate(), key=lambda a, limits=limits: limits.excess(MODEL.cost(a)))
        paths = FeasiblePaths(SPACE, MODEL, limits)
        assert limits.excess(MODEL.cost(paths.nearest())) == limits.excess(MODEL.cost(nearest))
    with pytest.raises(UserError) as caught:
        FeasiblePaths(SPACE, MODEL, Limits(max_parameters=1049)).check()
    message = str(caught.value)
    assert "max_parameters 1,049" in message
    assert "the nearest is a-a-a-a-a with 1,050 parameters and 1550 FLOPs" in message


def test_a_window_between_reachable_costs_is_infeasible():
    limits = Limits(max_parameters=1052, min_parameters=1051)
    assert brute_force(limits) == set()
    with pytest.raises(UserError, match="a-a-a-a-a"):
        FeasiblePaths(SPACE, MODEL, limits).check()


class TestTooManyCosts:
    """10 layers of 8 operators of unrelated sizes: 19,448 totals, close ones share a node."""

    sizes = np.random.default_rng(4).integers([10**6, 0], [5 * 10**6, 10**9], (8, 2)).tolist()
    operators: ClassVar[dict[str, Cost]] = {
        f"op{i}": Cost(parameters, float(flops)) for i, (parameters, flops) in enumerate(sizes)
    }
    space = SearchSpace.uniform(10, tuple(operators))
    model = CostModel(operators, Cost(10**7))
    low, high = model.range(space)

    @pytest.mark.parametrize("limits", [
        Limits(max_parameters=low.parameters + 10**7),
        Limits(max_parameters=low.parameters + 10**7, max_flops=low.flops + 3e9),
        Limits(max_parameters=low.parameters + 10**7 + 5000, min_parameters=low.parameters + 10**7),
    ])  # fmt: skip
    def test_draws_keep_the_limits(self, limits):
        paths = FeasiblePaths(self.space, self.model, limits)
        assert not paths.is_exact
        paths.check()
        drawn = paths.draw(30, np.random.default_rng(0))
        assert len(set(drawn)) == 30
        assert all(limits.admits(self.model.cost(a)) for a in drawn)

    def test_the_smallest_path_is_never_lost(self):
        paths = FeasiblePaths(self.space, self.model, Limits(max_parameters=self.low.parameters))
        (only,) = paths.draw(5, np.random.default_rng(0))
        assert self.model.cost(only).parameters == self.low.parameters

    def test_nothing_feasible_names_the_nearest(self):
        paths = FeasiblePaths(self.space, self.model, Limits(max_parameters=5 * 10**6))
        assert self.model.cost(paths.nearest()).parameters == self.low.parameters
        with pytest.raises(UserError, match="the nearest is"):
            paths.check()
