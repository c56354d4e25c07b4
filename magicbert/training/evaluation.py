"""Scores on the held-out split, each rank taking its share of the batches."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from typing import Any

from magicbert.space import Architecture, SearchSpace
from magicbert.space.randomness import keyed_generator
from magicbert.supernet.objective import Objective
from magicbert.supernet.scoring import Score
from magicbert.supernet.shared_prefix import SharedPrefix
from magicbert.supernet.supernet import Supernet
from magicbert.training.ranks import Ranks
from magicbert.training.watching.interruption import Interruption

# Paths that are scored together, and after which ranks ask whether to stop.
PATHS_AT_ONCE = 32


class EvaluationStopped(Exception):  # noqa: N818  (no error: the run was told to stop)
    """Some rank was told to stop; raised on all ranks at the same paths."""


class Evaluator:
    """Scores paths on fixed batches; the result is the same on every rank.

    Paths that begin alike share what they have in common. With an `interruption`, a signal on any
    rank ends a long evaluation after the paths that are being scored together.

    Args:
        supernet: with the weights of the moment.
        objective: the task loss.
        batches: fixed batches of the held-out split, the same on every rank.
        ranks: every one scores ``batches[rank::num_ranks]``.
        gathered: makes a path's weights readable for a block; needed where they are partitioned.
        paths_at_once: paths that are scored together at most; their weights are whole meanwhile.
    """

    def __init__(
        self,
        supernet: Supernet,
        objective: Objective,
        batches: Sequence[Any],
        ranks: Ranks,
        gathered: Callable[[Architecture], AbstractContextManager[None]] = lambda _: nullcontext(),
        paths_at_once: int = PATHS_AT_ONCE,
    ) -> None:
        self.supernet = supernet
        self.objective = objective
        self.batches = batches[ranks.rank :: ranks.num_ranks]
        self.ranks = ranks
        self.gathered = gathered
        self.paths_at_once = paths_at_once
        self.interruption: Interruption | None = None

    def score(self, architecture: Architecture) -> Score:
        """Returns the sums over all ranks' batches."""
        return self.scores((architecture,))[architecture]

    def scores(self, architectures: Collection[Architecture]) -> dict[Architecture, Score]:
        """Returns the sums of several paths over all ranks' batches."""
        found: dict[Architecture, Score] = {}
        ordered = sorted(set(architectures))
        for start in range(0, len(ordered), self.paths_at_once):
            found |= self.scores_together(ordered[start : start + self.paths_at_once])
        return found

    def scores_together(self, paths: Sequence[Architecture]) -> dict[Architecture, Score]:
        """Scores paths on this rank's batches, then tells the other ranks.

        Raises:
            EvaluationStopped: some rank was told to stop.
        """
        with ExitStack() as whole:
            for path in paths:
                whole.enter_context(self.gathered(path))
            own = SharedPrefix(self.supernet, self.objective, self.batches).totals(paths)
        is_interrupted = self.interruption is not None and self.interruption.is_requested
        values = [value for path in paths for value in self.sums(own[path])]
        *sums, interrupted = self.ranks.exchange(
            "evaluation", [*values, is_interrupted], {"paths": " ".join(map(str, paths))}
        )
        if interrupted:
            raise EvaluationStopped
        size = len(sums) // len(paths)
        parts = (sums[start : start + size] for start in range(0, len(sums), size))
        return {
            path: Score(loss_sum, int(correct), int(count), tuple(logged))
            for path, (loss_sum, correct, count, *logged) in zip(paths, parts, strict=True)
        }

    def sums(self, own: Score) -> tuple[float, ...]:
        """Returns what the ranks add up; one without batches has as many zeros as the others."""
        logged = own.logged or (0.0,) * len(self.objective.logged)
        return own.loss_sum, own.correct, own.count, *logged

    def mean(self, architectures: Sequence[Architecture]) -> Score:
        """Returns the sums over several paths: its loss and accuracy are means over them."""
        scores = self.scores(architectures)
        return sum((scores[path] for path in architectures), Score(0.0, 0, 0))


def evaluation_paths(space: SearchSpace, num_paths: int, seed: int) -> list[Architecture]:
    """Returns the fixed paths that an evaluation averages.

    They depend on seed and space alone. A space that is not larger than ``num_paths`` is taken
    whole: a single-path space gives that path.
    """
    if space.count() <= num_paths:
        return list(space.enumerate())
    paths: dict[Architecture, None] = {}
    draw = 0
    while len(paths) < num_paths:
        paths[space.sample(keyed_generator(seed, "evaluation-path", draw))] = None
        draw += 1
    return list(paths)
