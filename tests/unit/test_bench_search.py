"""What ``magicbert bench search`` measures: the sets of paths, and that everyone scores them."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from magicbert.bench.registry import OWN, Contender
from magicbert.bench.search.populations import Population, evolution, uniform, whole_block
from magicbert.bench.search.sizes import CASES, IDEAL, MODELS, ONE_BY_ONE, Asked
from magicbert.bench.search.suite import search_suite
from magicbert.bench.search.trial import SearchTrial
from magicbert.config.reading import load_config
from magicbert.config.roots import BenchConfig
from magicbert.errors import UserError
from magicbert.space import SearchSpace

CPU = torch.device("cpu")
NAMES = ("mha4", "ffn", "conv3", "conv5")


def small(*, is_block: bool = False, generations: int = 2) -> SearchTrial:
    def population(space: SearchSpace, seed: int) -> Population:
        paths = uniform(space, 16 * generations, seed).paths
        return Population(tuple(paths[i : i + 16] for i in range(0, len(paths), 16)))

    asked = Asked("small", 3, population, 1, is_block=is_block)
    return SearchTrial(asked, 0, CPU, is_whole=True)


@pytest.mark.parametrize(("num_layers", "ratio"), [(12, 1.95), (24, 1.32)])
def test_uniform_paths_save_the_calls_of_the_facts(num_layers, ratio):
    paths = uniform(SearchSpace.uniform(num_layers, NAMES), 10_000, seed=0)
    assert paths.ratio == pytest.approx(ratio, abs=0.006)
    assert len(set(paths.paths)) == 10_000


def test_a_block_is_whole():
    block = whole_block(SearchSpace.uniform(6, NAMES))
    assert (block.calls_alone, block.calls_together) == (24_576, 5_460)


def test_an_evolution_never_asks_twice_and_its_paths_resemble_each_other():
    space = SearchSpace.uniform(12, NAMES)
    evolved = evolution(space, seed=0)
    assert len(set(evolved.paths)) == len(evolved.paths)
    assert len(evolved.generations) == 21
    assert max(map(len, evolved.generations)) == 50
    assert evolved.ratio > 1.5 * uniform(space, len(evolved.paths), seed=0).ratio
    assert evolved == evolution(space, seed=0)
    assert evolved != evolution(space, seed=1)


def test_the_timed_paths_are_a_subtree_that_saves_as_much_as_the_whole():
    for name in ("block", "uniform-12", "evolution"):
        asked = CASES[name]
        whole = asked.population(MODELS["cpu"].space(asked.num_layers), 0)
        part = whole.like_the_whole(asked.prefix_layers)
        prefix = part.paths[0].operators[: asked.prefix_layers]
        kept = {path for path in whole.paths if path.operators[: asked.prefix_layers] == prefix}
        assert set(part.paths) == kept
        assert part.ratio == pytest.approx(whole.ratio, rel=0.01)


@pytest.mark.parametrize("is_block", [False, True])
def test_everyone_scores_all_paths_rightly(is_block):
    trial = small(is_block=is_block)
    made = trial.trial()
    names = [contender.name for contender in made.lineup.contenders]
    assert (names[0], names[-1]) == (OWN, ONE_BY_ONE)
    assert all(made.judge(contender).is_right for contender in made.lineup.contenders)
    answers = [contender.call(0) for contender in made.lineup.contenders]
    assert all(set(answer) == set(trial.timed.paths) for answer in answers)
    assert answers[0] == answers[-1]
    assert made.units == 32
    assert made.facts["fewer calls, timed paths"] == trial.timed.ratio
    assert made.facts[IDEAL] > 0


def test_a_wrong_loss_is_seen():
    trial = small()
    trial.trial()

    def wrong(population: Population):
        found = trial.one_by_one(population)
        path = population.paths[3]
        return {**found, path: dataclasses.replace(found[path], loss_sum=1.0)}

    trial.scorers["wrong"] = wrong
    assert not trial.verdict(Contender("wrong", lambda index: None)).is_right


def test_what_does_not_exist_is_refused(tmp_path):
    overrides = {"target": "search", "search.cases": "[speed]", "run.root": str(tmp_path)}
    with pytest.raises(UserError, match=r"search\.cases: 'speed'"):
        search_suite(load_config(BenchConfig, None, overrides))
