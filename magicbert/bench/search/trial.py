"""One set of paths scored one by one, together, and together with stacked prefixes."""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from magicbert.bench.registry import OWN, Call, Case, Contender, Floor, Lineup, Trial, Verdict
from magicbert.bench.search.populations import Population
from magicbert.bench.search.sizes import (
    IDEAL,
    LARGE_VOCABULARY,
    MODELS,
    ONE_BY_ONE,
    STACKED,
    Asked,
)
from magicbert.bert.objectives.mlm import MaskedLanguageModeling
from magicbert.bert.supernet import BertSupernet, build_supernet
from magicbert.config.sections import ModelSection
from magicbert.data.batch import TokenBatch
from magicbert.space import Architecture
from magicbert.supernet.objective import LossOutput, Objective
from magicbert.supernet.prefixes import added_prefixes
from magicbert.supernet.scoring import Score, dropout_off, score
from magicbert.supernet.shared_prefix import SharedPrefix
from magicbert.supernet.supernet import Supernet, SupernetOutput

MAX_BYTES = 2**30
PREDICTED = 0.15
ALLOWED = 1e-6
NUM_JUDGED = 24
NUM_COST_CALLS = 25
Scorer = Callable[[Population], dict[Architecture, Score]]


class BlockLoss(Objective):
    """Mean squared difference from a teacher's hidden state: what a block is scored by.

    Args:
        target: the teacher's hidden state, ``[rows, length, hidden]``.
    """

    def __init__(self, target: Tensor) -> None:
        self.target = target

    def count(self, batch: TokenBatch) -> int:
        """Returns the number of positions."""
        return batch.input_ids.numel()

    def num_tokens(self, batch: TokenBatch) -> int:
        """Returns the number of positions."""
        return batch.input_ids.numel()

    def read_loss(self, supernet: Supernet, batch: Any, output: SupernetOutput) -> LossOutput:
        """Returns the sum over positions of the mean squared difference."""
        loss = torch.nn.functional.mse_loss(output.hidden, self.target, reduction="sum")
        loss = loss / self.target.shape[-1]
        return LossOutput(loss, self.count(batch), output, {"correct": torch.zeros_like(loss)})


def search_case(asked: Asked, seed: int, *, is_whole: bool) -> Case:
    """Returns the case of one set of paths.

    Args:
        asked: which.
        seed: of paths, weights and tokens.
        is_whole: all paths are timed, not only those behind one prefix.
    """

    def build(device: torch.device) -> Trial:
        return SearchTrial(asked, seed, device, is_whole=is_whole).trial()

    head = "none" if asked.is_block else "large" if asked.has_large_head else "small"
    variant: dict[str, int | str] = {"layers": asked.num_layers, "head": head}
    return Case(asked.name, variant, build, unit="paths", is_replayable=False)


class SearchTrial:
    """Builds who scores.

    Args:
        asked: which paths.
        seed: of paths, weights and tokens.
        device: where they run.
        is_whole: all paths are timed.
    """

    def __init__(self, asked: Asked, seed: int, device: torch.device, *, is_whole: bool) -> None:
        size = MODELS[device.type]
        if asked.has_large_head:
            size = dataclasses.replace(size, vocabulary=LARGE_VOCABULARY)
        space = size.space(asked.num_layers)
        self.device = device
        self.whole = asked.population(space, seed)
        self.timed = self.whole if is_whole else self.whole.like_the_whole(asked.prefix_layers)
        model = ModelSection(hidden_size=size.hidden_size, max_length=size.length)
        self.supernet: BertSupernet = build_supernet(space, model, size.vocabulary, 0, seed=seed)
        self.supernet.to(device)
        self.batch = random_batch(size.rows, size.length, size.vocabulary, seed).to(device)
        self.objective: Objective = MaskedLanguageModeling()
        if asked.is_block:
            with torch.no_grad():
                self.objective = BlockLoss(torch.randn_like(self.supernet.enter(self.batch)[0]))

    def trial(self) -> Trial:
        """Returns everyone; each answers with the scores of the paths it was given."""
        stacked = STACKED[self.device.type]
        self.scorers: dict[str, Scorer] = {
            OWN: self.together,
            f"up to {stacked} prefixes stacked": partial(self.together, most_stacked=stacked),
            ONE_BY_ONE: self.one_by_one,
        }
        lineup = Lineup()
        for name, scorer in self.scorers.items():
            lineup.add(name, partial(self.call_of, scorer))
        return Trial(
            lineup=lineup,
            judge=self.verdict,
            floor=Floor(),
            units=len(self.timed.paths),
            facts=self.facts(),
        )

    def call_of(self, scorer: Scorer) -> Call:
        """Returns what is timed: all paths, from nothing kept."""
        return lambda index: scorer(self.timed)

    def together(self, population: Population, most_stacked: int = 1) -> dict[Architecture, Score]:
        """Scores every generation's paths together; prefixes are kept from one to the next."""
        scorer = SharedPrefix(
            self.supernet, self.objective, [self.batch],
            max_bytes=MAX_BYTES, most_stacked=most_stacked,
        )  # fmt: skip
        scores: dict[Architecture, Score] = {}
        for paths in population.generations:
            scores |= scorer.totals(paths)
        return scores

    def one_by_one(self, population: Population) -> dict[Architecture, Score]:
        """Scores one path after the other from the first layer on."""
        return {
            path: score(self.supernet, self.objective, [self.batch], path)
            for path in population.paths
        }

    def verdict(self, contender: Contender) -> Verdict:
        """Compares losses with those of the loop over paths."""
        some = Population((self.timed.paths[:NUM_JUDGED],))
        expected = self.one_by_one(some)
        found = self.scorers[contender.name](some)
        errors = [abs(found[path].loss / one.loss - 1) for path, one in expected.items()]
        return Verdict(max(errors), ALLOWED)

    def facts(self) -> dict[str, float | str]:
        """Returns how many calls are saved, and how much time that can save at best."""
        alone, together, head_share = self.least_seconds()
        return {
            "fewer calls, all paths": self.whole.ratio,
            "fewer calls, timed paths": self.timed.ratio,
            IDEAL: alone / together,
            "% of it for heads": 100 * head_share,
        }

    def least_seconds(self) -> tuple[float, float, float]:
        """Returns what the parts take: one by one, each prefix once, and the heads' share of that.

        Every operator, the embeddings and the head are timed alone; the paths' parts are summed.
        """
        operators = self.supernet.space.layers[0]
        candidates = [Architecture((name,) * len(self.timed.paths[0])) for name in operators]
        with dropout_off(self.supernet, candidates), torch.no_grad():
            hidden, context = self.supernet.enter(self.batch)
            output = SupernetOutput(hidden, (), None)
            parts: dict[str, Callable[[], object]] = {
                name: partial(self.supernet.operator(0, name), hidden, context)
                for name in operators
            }
            parts["enter"] = lambda: self.supernet.enter(self.batch)
            parts["head"] = lambda: self.objective.read_loss(self.supernet, self.batch, output)
            costs = self.seconds(parts)
        paths = sorted(self.timed.paths)
        heads = len(paths) * costs["head"]
        alone = len(paths) * costs["enter"] + sum(costs[name] for path in paths for name in path)
        added = zip(paths, added_prefixes(paths), strict=True)
        shared = sum(costs[name] for path, num in added for name in path.operators[-num:])
        together = len(self.timed.generations) * costs["enter"] + shared + heads
        return alone + heads, together, heads / together

    def seconds(self, parts: dict[str, Callable[[], object]]) -> dict[str, float]:
        """Returns the median time of each part; they take turns."""
        times: dict[str, list[float]] = {name: [] for name in parts}
        for number in range(NUM_COST_CALLS + 3):
            for name, call in parts.items():
                start = self.now()
                call()
                if number >= 3:
                    times[name].append(self.now() - start)
        return {name: statistics.median(values) for name, values in times.items()}

    def now(self) -> float:
        """Reads the clock that contenders are timed with, the device having nothing left to do."""
        if self.device.type != "cuda":
            return time.process_time()
        torch.cuda.synchronize(self.device)
        return time.perf_counter()


def random_batch(rows: int, length: int, vocabulary: int, seed: int) -> TokenBatch:
    """Returns full rows of random tokens, 15% of them predicted."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(1, vocabulary, (rows, length), generator=generator)
    num_predicted = round(PREDICTED * rows * length)
    positions = torch.randperm(rows * length, generator=generator)[:num_predicted].sort().values
    labels = torch.randint(1, vocabulary, (num_predicted,), generator=generator)
    return TokenBatch(ids, torch.ones_like(ids), positions, labels, tuple(range(rows)))
