"""Scores on the held-out split, each rank taking its share of the batches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from magicbert.space import Architecture, SearchSpace
from magicbert.space.randomness import keyed_generator
from magicbert.supernet.objective import Objective
from magicbert.supernet.scoring import Score, score
from magicbert.supernet.supernet import Supernet
from magicbert.training.ranks import Ranks
from magicbert.training.watching.interruption import Interruption


class EvaluationStopped(Exception):  # noqa: N818  (no error: the run was told to stop)
    """Some rank was told to stop; raised on all ranks at the same path."""


class Evaluator:
    """Scores paths on fixed batches; the result is the same on every rank.

    With an `interruption`, a signal on any rank ends a long evaluation after the current path.

    Args:
        supernet: with the weights of the moment.
        objective: the task loss.
        batches: fixed batches of the held-out split, the same on every rank.
        ranks: every one scores ``batches[rank::num_ranks]``.
        gathered: makes a path's weights readable for a block; needed where they are partitioned.
    """

    def __init__(
        self,
        supernet: Supernet,
        objective: Objective,
        batches: Sequence[Any],
        ranks: Ranks,
        gathered: Callable[[Architecture], AbstractContextManager[None]] = lambda _: nullcontext(),
    ) -> None:
        self.supernet = supernet
        self.objective = objective
        self.batches = batches[ranks.rank :: ranks.num_ranks]
        self.ranks = ranks
        self.gathered = gathered
        self.interruption: Interruption | None = None

    def score(self, architecture: Architecture) -> Score:
        """Returns the sums over all ranks' batches."""
        with self.gathered(architecture):
            own = score(self.supernet, self.objective, self.batches, architecture)
        is_interrupted = self.interruption is not None and self.interruption.is_requested
        *sums, interrupted = self.ranks.exchange(
            "evaluation",
            [own.loss_sum, own.correct, own.count, is_interrupted],
            {"path": architecture},
        )
        if interrupted:
            raise EvaluationStopped
        return Score(sums[0], int(sums[1]), int(sums[2]))

    def mean(self, architectures: Sequence[Architecture]) -> Score:
        """Returns the sums over several paths: its loss and accuracy are means over them."""
        total = Score(0.0, 0, 0)
        for architecture in architectures:
            total = total + self.score(architecture)
        return total


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
