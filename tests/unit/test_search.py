"""The search on the toy tenant with random weights: nothing is trained, everything is checked."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
import torch
from toy_tenant import OPERATORS, ToyObjective, ToySource, ToySupernet

from magicbert.config.sections import SearchSection
from magicbert.errors import UserError
from magicbert.search.evaluator import Evaluator, InheritedWeights
from magicbert.search.judge import Judge
from magicbert.search.score_file import ScoreFile
from magicbert.search.searching import Search
from magicbert.search.shrinking import num_to_drop, operator_losses, shrink
from magicbert.space import Architecture, Cost, CostModel, Limits, SearchSpace
from magicbert.space.feasible import FeasiblePaths
from magicbert.supernet.scoring import Score, score

SPACE = SearchSpace.uniform(4, OPERATORS)
COSTS = CostModel(
    {"small": Cost(10, 20.0), "middle": Cost(20, 40.0), "large": Cost(31, 60.0)}, Cost(100, 1.0)
)
LARGE = SearchSpace.uniform(8, OPERATORS)
SECTION = SearchSection(
    num_rounds=3, samples_per_round=60, num_finalists=20, num_dev_batches=2, num_final_batches=3,
    num_results=5,
)  # fmt: skip


class Counting:
    """Sums a made-up loss over layers; keeps what was asked."""

    def __init__(self, space: SearchSpace) -> None:
        self.asked: list[tuple[Architecture, int]] = []
        self.num_batches = 100
        self.losses = {
            (layer, name): 1 + math.sin(7 * layer + 3 * index)
            for layer, names in enumerate(space.layers)
            for index, name in enumerate(names)
        }

    def loss(self, architecture: Architecture) -> float:
        return sum(self.losses[pair] for pair in enumerate(architecture))

    def __call__(self, architectures, batches):
        self.asked += [(a, batches.stop) for a in architectures]
        for a in architectures:
            yield a, tuple(Score(self.loss(a) * 10, 1, 10) for _ in batches)


def toy_supernet(space: SearchSpace = SPACE) -> ToySupernet:
    torch.manual_seed(0)
    return ToySupernet(space)


def inherited() -> InheritedWeights:
    return InheritedWeights(toy_supernet(), ToyObjective(), ToySource(rows=16).dev_batches(3))


def searching(
    space: SearchSpace,
    limits: Limits,
    section: SearchSection,
    evaluator: Evaluator,
    scores: ScoreFile | None = None,
) -> Search:
    return Search(section, Judge(FeasiblePaths(space, COSTS, limits), evaluator, scores))


@pytest.mark.parametrize("limits", [
    Limits(), Limits(max_parameters=180), Limits(max_parameters=185, min_parameters=175),
    Limits(max_flops=200.0),
])  # fmt: skip
def test_a_small_space_gives_the_best_of_brute_force(limits):
    evaluator = inherited()
    section = replace(SECTION, samples_per_round=81, num_final_batches=2)
    best = searching(SPACE, limits, section, evaluator).run()
    supernet, batches = toy_supernet(), ToySource(rows=16).dev_batches(2)
    losses = {
        a: score(supernet, ToyObjective(), batches, a).loss
        for a in SPACE.enumerate()
        if limits.admits(COSTS.cost(a))
    }
    expected = sorted(losses, key=lambda a: (losses[a], str(a)))
    assert [c.architecture for c in best] == expected[: len(best)]
    assert len(best) == min(5, len(expected))
    assert best[0].loss == losses[expected[0]]


@pytest.mark.parametrize("limits", [
    Limits(), Limits(max_parameters=250), Limits(max_parameters=235, min_parameters=225),
])  # fmt: skip
def test_shrinking_finds_the_optimum_of_an_additive_loss(limits):
    """81 of 6561 paths a round: the mean over samples must rank the operators rightly."""
    evaluator = Counting(LARGE)
    search = searching(LARGE, limits, SECTION, evaluator)
    best = search.run()
    admitted = [a for a in LARGE.enumerate() if limits.admits(COSTS.cost(a))]
    ranking = sorted(evaluator.loss(a) for a in admitted)
    assert best[0].loss <= ranking[len(ranking) // 100]
    assert len({a for a, _ in evaluator.asked}) < 220
    assert all(limits.admits(COSTS.cost(a)) for a, _ in evaluator.asked)


def test_rounds_shrink_and_never_empty_a_layer():
    search = searching(LARGE, Limits(), SECTION, Counting(LARGE))
    told = []
    search.run(told.append)
    assert told == search.rounds
    assert [one.number for one in search.rounds] == [1, 2, 3, 4]
    sizes = [sum(map(len, one.space.layers)) - 8 for one in search.rounds]
    assert sizes == [11, 7, 4, 4]  # the surplus 16, less 30% rounded up, three times
    for one, after in zip(search.rounds, search.rounds[1:], strict=False):
        assert all(c.architecture in one.space for c in after.candidates[SECTION.num_results :])
    assert [len(one.dropped) for one in search.rounds] == [5, 4, 3, 0]
    assert all(names for one in search.rounds for names in one.space.layers)
    assert all(
        list(one.candidates) == sorted(one.candidates, key=lambda c: c.rank_key)
        for one in search.rounds
    )


def test_dropped_operators_are_the_worst():
    evaluator = Counting(LARGE)
    search = searching(LARGE, Limits(), replace(SECTION, samples_per_round=400), evaluator)
    search.run()
    kept = [
        min(evaluator.losses[layer, name] for name in names)
        for layer, names in enumerate(search.rounds[0].space.layers)
    ]
    best = [
        min(evaluator.losses[layer, name] for name in names)
        for layer, names in enumerate(LARGE.layers)
    ]
    assert kept == best  # the best operator of a layer is never among the worst fifth


def test_the_same_seed_gives_the_same_search_and_another_one_does_not():
    def asked(seed: int) -> list[tuple[Architecture, int]]:
        evaluator = Counting(LARGE)
        section = replace(SECTION, seed=seed)
        searching(LARGE, Limits(max_parameters=260), section, evaluator).run()
        return evaluator.asked

    assert asked(1) == asked(1)
    assert asked(1) != asked(2)


def test_finals_rank_on_more_batches_and_keep_the_best_seen():
    evaluator = Counting(LARGE)
    section = replace(SECTION, num_rounds=2)
    search = searching(LARGE, Limits(), section, evaluator)
    best = search.run()
    finals = search.rounds[-1]
    assert finals.num_batches == 3
    assert {n for a, n in evaluator.asked[-len(finals.candidates) :]} == {3}
    assert len(finals.candidates) == 20
    seen = [c for one in search.rounds[:-1] for c in one.candidates]
    assert min(c.loss for c in seen) >= best[0].loss
    assert list(finals.candidates[:5]) == best


def test_no_rounds_is_random_search():
    evaluator = Counting(LARGE)
    section = replace(SECTION, num_rounds=0)
    best = searching(LARGE, Limits(), section, evaluator).run()
    assert len(evaluator.asked) == 20
    assert best[0].loss == pytest.approx(min(evaluator.loss(a) for a, _ in evaluator.asked))


def test_limits_out_of_reach_fail_before_anything_is_scored():
    evaluator = Counting(SPACE)
    with pytest.raises(UserError) as caught:
        searching(SPACE, Limits(max_parameters=120), SECTION, evaluator)
    message = str(caught.value)
    assert "max_parameters 120" in message
    assert "the nearest is small-small-small-small with 140 parameters and 81 FLOPs" in message
    assert evaluator.asked == []


def test_shrinking_keeps_the_limits_within_reach():
    """Only paths with ``large`` in every layer keep the limit, and ``large`` is the worst."""
    limits = Limits(min_parameters=100 + 4 * 31)
    losses = {a: float(sum(name == "large" for name in a)) for a in SPACE.enumerate()}

    def is_feasible(space: SearchSpace) -> bool:
        return any(limits.admits(COSTS.cost(a)) for a in space.enumerate())

    space, dropped = shrink(SPACE, losses, 0.99, is_feasible)
    assert space == SearchSpace.uniform(4, ("large",))
    assert len(dropped) == 8


def test_operator_loss_is_the_mean_over_its_holders():
    space = SearchSpace((("small", "large"), ("small", "middle")))
    losses = {
        Architecture(("small", "small")): 1.0,
        Architecture(("small", "middle")): 2.0,
        Architecture(("large", "small")): 6.0,
    }
    assert operator_losses(space, losses) == {
        (0, "small"): 1.5, (0, "large"): 6.0, (1, "small"): 3.5, (1, "middle"): 2.0,
    }  # fmt: skip
    del losses[Architecture(("large", "small"))]
    assert operator_losses(space, losses)[0, "large"] == math.inf
    assert num_to_drop(space, 0.3) == 1
    assert num_to_drop(space, 0.0) == 0
    assert num_to_drop(SearchSpace.of(Architecture(("small",))), 0.3) == 0


def test_no_path_is_scored_twice_on_a_batch(tmp_path):
    class Once(ToyObjective):
        calls = 0

        def read_loss(self, *arguments):
            type(self).calls += 1
            return super().read_loss(*arguments)

    def judge(scores: ScoreFile) -> Judge:
        batches = ToySource(rows=8).dev_batches(3)
        evaluator = InheritedWeights(toy_supernet(), Once(), batches)
        return Judge(FeasiblePaths(SPACE, COSTS, Limits()), evaluator, scores)

    paths = list(SPACE.enumerate())[:6]
    first = judge(ScoreFile(tmp_path / "scores", {"weights": "one"}))
    taken = first.batch_scores(paths[:4], 2)
    whole = first.batch_scores(paths, 2)
    assert {a: whole[a] for a in taken} == taken
    assert Once.calls == 6 * 2
    first.scores.close()
    again = judge(ScoreFile(tmp_path / "scores", {"weights": "one"}))
    assert again.batch_scores(paths, 2) == whole
    assert {a: s[:1] for a, s in whole.items()} == again.batch_scores(paths, 1)
    assert Once.calls == 6 * 2
    more = again.batch_scores(paths[:1], 9)[paths[0]]
    assert more[:2] == whole[paths[0]]
    assert len(more) == 3  # there are no more batches
    assert Once.calls == 6 * 2 + 1
    assert sum(more, start=Score(0.0, 0, 0)) == score(
        toy_supernet(), ToyObjective(), ToySource(rows=8).dev_batches(3), paths[0]
    )


def test_a_search_that_was_killed_goes_on_to_the_same_result(tmp_path):
    section = replace(SECTION, samples_per_round=20)
    whole = searching(SPACE, Limits(), section, inherited())
    expected = whole.run()
    file = tmp_path / "scores.jsonl"
    scores = ScoreFile(file, {"x": 1})
    searching(SPACE, Limits(), replace(section, num_rounds=1), inherited(), scores).run()
    scores.close()
    text = file.read_text()
    file.write_text(text[: len(text) - 25])  # the last line is cut off
    known = ScoreFile(file, {"x": 1})
    assert len(known) == len(text.splitlines()) - 2
    resumed = searching(SPACE, Limits(), section, inherited(), known)
    assert resumed.run() == expected
    assert resumed.rounds == whole.rounds
    assert all(json.loads(line) for line in file.read_text().splitlines())


def test_scores_of_other_weights_are_not_used(tmp_path):
    scores = ScoreFile(tmp_path / "scores", {"weights": "one"})
    scores.add(Architecture(("small",)), [Score(1.0, 1, 2)])
    scores.close()
    assert len(ScoreFile(tmp_path / "scores", {"weights": "one"})) == 1
    other = ScoreFile(tmp_path / "scores", {"weights": "two"})
    assert len(other) == 0
    other.add(Architecture(("large",)), [Score(3.0, 1, 2)])
    other.close()
    assert len(ScoreFile(tmp_path / "scores", {"weights": "one"})) == 0


def test_a_loss_that_is_not_finite_is_refused():
    evaluator = inherited()
    with torch.no_grad():
        evaluator.together.supernet.operator(0, "large").norm.weight.fill_(float("nan"))
    judge = Judge(FeasiblePaths(SPACE, COSTS, Limits()), evaluator)
    with pytest.raises(UserError, match=r"large-small-small-small is nan"):
        judge.batch_scores([Architecture(("large", "small", "small", "small"))], 1)
