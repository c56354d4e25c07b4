"""Every strategy on losses that are known beforehand: what it finds, asks for, and promises."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from toy_tenant import OPERATORS

from magicbert.config.sections import SearchSection
from magicbert.errors import UserError
from magicbert.search.bins import Bins
from magicbert.search.confidence import cannot_win, error_rate_of_test
from magicbert.search.evaluator import KnownLosses, LossFunction
from magicbert.search.evolution import Breeding
from magicbert.search.halving import rungs
from magicbert.search.judge import Judge
from magicbert.search.pareto import crowding, first_front, fronts
from magicbert.search.pool import in_turn, shrink_pool
from magicbert.search.score_file import ScoreFile
from magicbert.search.searching import Search
from magicbert.search.strategies import STRATEGIES
from magicbert.space import Architecture, Cost, CostModel, Limits, SearchSpace
from magicbert.space.feasible import FeasiblePaths
from magicbert.space.listed import ListedPaths

SPACE = SearchSpace.uniform(8, OPERATORS)
COSTS = CostModel(
    {"small": Cost(10, 20.0, 5), "middle": Cost(20, 40.0, 9), "large": Cost(31, 60.0, 7)},
    Cost(100, 1.0, 3),
)
SECTION = SearchSection(
    num_rounds=4, samples_per_round=60, num_finalists=20, num_dev_batches=4, num_final_batches=16,
    num_results=5, population_size=15, pool_size=400, num_bins=4, kept_per_bin=5,
)  # fmt: skip
LIMITS = Limits(max_parameters=270, min_parameters=220)
WORTH = {
    (layer, name): math.sin(7 * layer + 3 * index)
    for layer in range(8)
    for index, name in enumerate(OPERATORS)
}
STRATEGY_NAMES = sorted(STRATEGIES)


def expected_loss(architecture: Architecture) -> float:
    return 10 + sum(WORTH[pair] for pair in enumerate(architecture))


def noisy_loss(architecture: Architecture, batch: int) -> float:
    """A batch is hard for all alike; what it adds to each alone is small and keyed by its name."""
    own = math.sin(batch * 1.7 + sum(map(ord, str(architecture))) % 97)
    return expected_loss(architecture) + 2 * math.sin(3 * batch) + 0.05 * own


class Asked(LossFunction):
    """Remembers what was asked."""

    def __init__(self, num_batches: int = 16) -> None:
        super().__init__(noisy_loss, num_batches)
        object.__setattr__(self, "asked", [])

    def __call__(self, architectures, batches):
        for architecture, scores in super().__call__(architectures, batches):
            self.asked.append((architecture, batches))  # type: ignore[attr-defined]
            yield architecture, scores

    @property
    def num_scores(self) -> int:
        return sum(len(batches) for _, batches in self.asked)  # type: ignore[attr-defined]


def search_with(strategy: str, *, limits=LIMITS, scores=None, evaluator=None, **changes) -> Search:
    section = replace(SECTION, strategy=strategy, **changes)
    evaluator = evaluator or Asked()
    return Search(section, Judge(FeasiblePaths(SPACE, COSTS, limits), evaluator, scores))


@pytest.mark.parametrize("strategy", STRATEGY_NAMES)
def test_a_strategy_keeps_the_limits_and_its_budget_and_finds_a_good_one(strategy):
    evaluator = Asked()
    search = search_with(strategy, evaluator=evaluator)
    best = search.run()
    asked = {architecture for architecture, _ in evaluator.asked}
    assert all(LIMITS.admits(COSTS.cost(architecture)) for architecture in asked)
    assert len(asked) <= 4 * 60 + 20
    ranking = sorted(expected_loss(a) for a in SPACE.enumerate() if LIMITS.admits(COSTS.cost(a)))
    share = {"random": 0.03, "halving": 0.03}.get(strategy, 0.01)
    assert expected_loss(best[0].architecture) <= ranking[int(share * len(ranking))]
    assert best[0].num_batches == 16
    assert len(best) == len({c.architecture for c in best}) == 5
    numbers = [one.number for one in search.rounds]
    assert numbers == list(range(1, len(numbers) + 1))


@pytest.mark.parametrize("strategy", STRATEGY_NAMES)
def test_a_strategy_stopped_anywhere_goes_on_to_the_same_result(strategy, tmp_path):
    whole = search_with(strategy)
    expected = whole.run()
    assert search_with(strategy).run() == expected
    assert search_with(strategy, seed=1).run() != expected

    class StoppedError(Exception):
        pass

    class Stopping(Asked):
        def __call__(self, architectures, batches):
            for one in super().__call__(architectures, batches):
                if len(self.asked) == 70:
                    raise StoppedError
                yield one

    file = tmp_path / "scores"
    scores = ScoreFile(file, {})
    with pytest.raises(StoppedError):
        search_with(strategy, scores=scores, evaluator=Stopping()).run()
    scores.close()
    again = Asked()
    resumed = search_with(strategy, scores=ScoreFile(file, {}), evaluator=again)
    assert len(resumed.judge.scores) > 0
    assert resumed.run() == expected
    assert resumed.rounds == whole.rounds
    assert again.num_scores + 69 * 4 == whole.judge.evaluate.num_scores


@pytest.mark.parametrize("strategy", STRATEGY_NAMES)
def test_a_strategy_searches_a_list_that_is_no_whole_space(strategy):
    generator = np.random.default_rng(0)
    listed = {SPACE.sample(generator) for _ in range(150)}
    choices = ListedPaths({a: COSTS.cost(a) for a in listed}, LIMITS)
    losses = {a: [noisy_loss(a, seed) for seed in range(3)] for a in listed}
    section = replace(SECTION, strategy=strategy, samples_per_round=15, num_dev_batches=2)
    best = Search(section, Judge(choices, KnownLosses(losses))).run()
    ranking = sorted(np.mean(losses[a]) for a in listed if LIMITS.admits(COSTS.cost(a)))
    assert best[0].loss <= ranking[8]
    assert best[0].num_batches == 3


@pytest.mark.parametrize("strategy", STRATEGY_NAMES)
def test_a_strategy_ends_where_there_is_little_to_choose(strategy):
    limits = Limits(max_parameters=190)
    search = search_with(strategy, limits=limits)
    best = search.run()
    admitted = [a for a in SPACE.enumerate() if limits.admits(COSTS.cost(a))]
    assert best[0].architecture == min(admitted, key=expected_loss)


def test_evolution_beats_random_search_of_the_same_budget():
    losses = {
        strategy: np.mean([
            expected_loss(search_with(strategy, seed=seed).run()[0].architecture)
            for seed in range(3)
        ])
        for strategy in ("evolution", "random")
    }  # fmt: skip
    assert losses["evolution"] < losses["random"]


def test_evolution_for_several_objectives_covers_the_front_better():
    """Parents by loss alone crowd at the large end; by fronts they stay small as well."""
    sizes = {}
    for objectives in (("loss",), ("loss", "parameters")):
        search = search_with("evolution", limits=Limits(), objectives=objectives)
        search.run()
        front = search.front(("loss", "parameters"))
        sizes[objectives] = min(c.cost.parameters for c in front)
        assert len(front) > 3
    assert sizes["loss", "parameters"] < sizes["loss",]


def test_children_are_new_and_an_exchange_costs_the_same():
    choices = FeasiblePaths(SPACE, COSTS, LIMITS)
    generator = np.random.default_rng(1)
    parents = choices.draw(10, generator)
    breeding = Breeding(choices, SECTION, parents, generator)
    children = breeding.children(frozenset(parents))
    assert len(set(children)) == 60
    assert not set(children) & set(parents)
    assert all(child in choices for child in children)
    for parent in parents:
        assert COSTS.cost(breeding.exchange(parent)) == COSTS.cost(parent)
        assert max(breeding.mutate(parent).distance(parent) for _ in range(20)) >= 1
        child = breeding.cross(parent, parents[0])
        assert all(name in pair for name, *pair in zip(child, parent, parents[0], strict=True))


def test_what_cannot_win_is_not_scored_further():
    evaluator = Asked()
    search = search_with("halving", evaluator=evaluator)
    search.run()
    assert [one.num_batches for one in search.rounds] == [4, 8, 16]
    kept = [len(one.candidates) for one in search.rounds]
    assert kept[0] == 240
    assert kept[0] > kept[1] >= kept[2] >= 1
    assert evaluator.num_scores < 0.5 * 240 * 16
    scored = {c.architecture for c in search.rounds[0].candidates}
    best = min(scored, key=expected_loss)
    assert best in {c.architecture for c in search.rounds[-1].candidates}


def test_halving_without_a_promise_drops_half():
    search = search_with("halving", confidence=0.0)
    search.run()
    assert [len(one.candidates) for one in search.rounds] == [240, 120, 60]
    assert rungs(4, 16) == [4, 8, 16]
    assert rungs(5, 12) == [5, 10, 12]
    assert rungs(9, 3) == [3]


@pytest.mark.parametrize("gap", [0.0, 0.05, 0.5])
def test_the_best_one_is_given_up_no_more_often_than_stated(gap):
    """3 looks at 12 candidates, 600 times; the others are worse by ``gap``, or just as good."""
    generator = np.random.default_rng(2)
    num_candidates, looks, confidence = 12, (4, 8, 16), 0.8
    error_rate = error_rate_of_test(confidence, num_candidates, len(looks))
    num_lost, num_kept = 0, 0
    for _ in range(600):
        means = np.where(np.arange(num_candidates) == 0, 0.0, gap)[:, None]
        hardness = 5 * generator.normal(size=16)
        sums = means + hardness + generator.normal(size=(num_candidates, 16))
        alive = np.arange(num_candidates)
        for num_batches in looks:
            alive = alive[~cannot_win(sums[alive, :num_batches], error_rate)]
        num_lost += 0 not in alive
        num_kept += len(alive)
    deviation = math.sqrt(600 * confidence * (1 - confidence))
    assert num_lost <= 600 * (1 - confidence) + 3 * deviation
    if gap == 0.5:
        assert num_kept < 600 * (num_candidates - 1)


def test_clear_losers_are_given_up_and_one_batch_proves_nothing():
    generator = np.random.default_rng(3)
    sums = np.array([[0.0], [5.0], [0.0]]) + 0.1 * generator.normal(size=(3, 6))
    assert cannot_win(sums, 0.01).tolist() == [False, True, False]
    assert cannot_win(sums[:, :1], 0.01).tolist() == [False, False, False]


def test_fronts_are_those_of_the_definition():
    generator = np.random.default_rng(4)
    points = generator.integers(0, 6, size=(60, 3)).astype(float)

    def dominates(a: int, b: int) -> bool:
        return bool((points[a] <= points[b]).all() and (points[a] < points[b]).any())

    everyone = set(range(60))
    remaining = set(everyone)
    for front in fronts(points):
        expected = {b for b in remaining if not any(dominates(a, b) for a in remaining)}
        assert set(front) == expected
        remaining -= expected
    assert not remaining
    assert first_front(np.array([[1.0, 1.0], [1.0, 1.0], [2.0, 0.0], [2.0, 2.0]])) == [0, 1, 2]
    assert first_front(np.zeros((0, 2))) == []
    room = crowding(np.array([[0.0, 4.0], [1.0, 3.0], [3.0, 1.0], [4.0, 0.0]]))
    assert room.tolist() == [math.inf, 1.5, 1.5, math.inf]


def test_bins_are_equal_steps_and_latency_must_lie_in_the_bin_of_the_size():
    costs = {
        Architecture((name,)): Cost(parameters, latency_ns=latency)
        for name, parameters, latency in (
            ("a", 100, 1000), ("b", 50, 500), ("c", 51, 500), ("d", 1, 1), ("e", 50, 501),
        )
    }  # fmt: skip
    sizes = Bins.over(4, costs.values())
    assert [sizes.place(cost) for cost in costs.values()] == [4, 2, 3, 1, 2]
    both = Bins.over(4, costs.values(), by_latency=True)
    assert [both.place(cost) for cost in costs.values()] == [4, 2, None, 1, None]
    assert {place: [str(a) for a in paths] for place, paths in both.sort(costs).items()} == {
        1: ["d"], 2: ["b"], 4: ["a"],
    }  # fmt: skip


def test_a_bin_loses_the_worse_half_of_its_sample_and_keeps_enough():
    paths = [Architecture((name,)) for name in "abcdefgh"]
    losses = {path: float(index) for index, path in enumerate(paths)}
    pool = {1: paths[:6], 2: paths[6:]}
    smaller = shrink_pool(pool, {1: paths[:4], 2: paths[6:]}, losses, kept_per_bin=2)
    assert smaller == {1: [*paths[:2], *paths[4:6]], 2: paths[6:]}
    assert shrink_pool(pool, pool, losses, kept_per_bin=5)[1] == paths[:5]
    assert in_turn(smaller, losses)[:4] == [paths[0], paths[6], paths[1], paths[7]]
    unscored = {path: losses[path] for path in paths[4:]}
    assert in_turn(smaller, unscored)[-2:] == paths[:2]


def test_every_bin_reaches_the_finals():
    search = search_with("shrink-architectures", limits=Limits(), num_finalists=12)
    search.run()
    bins = Bins.over(4, [c.cost for one in search.rounds for c in one.candidates])
    finalists = {bins.place(c.cost) for c in search.rounds[-1].candidates}
    assert finalists == {bins.place(c.cost) for c in search.rounds[0].candidates}
    left = [one.num_left for one in search.rounds]
    assert left == sorted(left, reverse=True)


def test_bins_that_hold_nothing_are_a_message():
    costs = {
        Architecture(("a",)): Cost(1, latency_ns=9),
        Architecture(("b",)): Cost(9, latency_ns=1),
    }
    section = replace(SECTION, strategy="shrink-architectures", bin_by="size-and-latency")
    judge = Judge(ListedPaths(costs, Limits()), KnownLosses({a: [1.0] for a in costs}))
    with pytest.raises(UserError, match=r"search\.bin_by: none of 2 architectures"):
        Search(section, judge).run()
