"""Searches on a function and on a toy supernet, alone or with other ranks."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from toy_tenant import OPERATORS, ToyObjective, ToySource, ToySupernet

from magicbert.config.sections import SearchSection
from magicbert.errors import UserError
from magicbert.search.evaluator import Evaluator, InheritedWeights, LossFunction
from magicbert.search.judge import Judge
from magicbert.search.searching import Search
from magicbert.search.strategies import STRATEGIES
from magicbert.space import Architecture, Cost, CostModel, Limits, SearchSpace
from magicbert.space.feasible import FeasiblePaths
from magicbert.stages.search_scores import close_scores, open_scores
from magicbert.training.ranks import Ranks

SPACE = SearchSpace.uniform(6, OPERATORS)
COSTS = CostModel(
    {"small": Cost(10, 20.0), "middle": Cost(20, 40.0), "large": Cost(31, 60.0)}, Cost(100, 1.0)
)
SECTION = SearchSection(
    num_rounds=3, samples_per_round=30, num_finalists=10, num_dev_batches=2, num_final_batches=4,
    num_results=4, population_size=8, pool_size=100, num_bins=3, kept_per_bin=4,
)  # fmt: skip


class Counted:
    """Counts what an evaluator is asked for; after ``most`` scores it stops working."""

    def __init__(self, evaluate: Evaluator, most: int) -> None:
        self.evaluate, self.most, self.num_scores = evaluate, most, 0

    @property
    def num_batches(self) -> int:
        return self.evaluate.num_batches

    def __call__(self, architectures, batches):
        for architecture, scores in self.evaluate(architectures, batches):
            if self.most and self.num_scores >= self.most:
                raise UserError("stopped")
            self.num_scores += len(scores)
            yield architecture, scores


def known_loss(architecture: Architecture, batch: int) -> float:
    return sum(math.sin(7 * layer + len(name)) for layer, name in enumerate(architecture)) + (
        0.03 * math.sin(batch + sum(map(ord, str(architecture))))
    )


def evaluator(strategy: str) -> Evaluator:
    if strategy != "shrink-operators":
        return LossFunction(known_loss, 4)
    torch.manual_seed(0)
    return InheritedWeights(ToySupernet(SPACE), ToyObjective(), ToySource(rows=8).dev_batches(4))


def search(strategy: str, folder: Path, ranks: Ranks | None, most: int = 0) -> dict[str, Any]:
    """Returns what a search found, or that it was stopped."""
    folder.mkdir(parents=True, exist_ok=True)
    scores = open_scores(folder, {"strategy": strategy}, ranks)
    counted = Counted(evaluator(strategy), most)
    choices = FeasiblePaths(SPACE, COSTS, Limits(max_parameters=230))
    judge = Judge(choices, counted, scores, ranks)
    searching = Search(replace(SECTION, strategy=strategy), judge)
    try:
        best = searching.run()
    except UserError:
        scores.close()
        return {"stopped": True, "num_scores": counted.num_scores}
    front = searching.front(("loss", "parameters"))
    close_scores(folder, scores, ranks)
    return {
        "best": [candidate.to_json() for candidate in best],
        "front": [candidate.to_json() for candidate in front],
        "asked": [[str(c.architecture) for c in one.candidates] for one in searching.rounds],
        "num_scores": counted.num_scores,
    }


def every_strategy(rank: int, num_ranks: int, folder: Path, arguments: Any) -> Any:
    dist.init_process_group("gloo")
    ranks = Ranks.of_process_group()
    torch.set_num_threads(1)
    found = {name: search(name, folder / name, ranks) for name in sorted(STRATEGIES)}
    stopped = search("evolution", folder / "stopped", ranks, most=20 if rank else 0)
    return {"whole": found, "stopped": stopped}


def alone(rank: int, num_ranks: int, folder: Path, stopped: str) -> Any:
    torch.set_num_threads(1)
    found = {name: search(name, folder / name, None) for name in sorted(STRATEGIES)}
    return {"whole": found, "resumed": search("evolution", Path(stopped), None)}
