"""Scores architectures with the weights they inherit from the supernet."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any, Protocol

from magicbert.errors import UserError
from magicbert.search.score_file import ScoreFile
from magicbert.space import Architecture
from magicbert.supernet.objective import Objective
from magicbert.supernet.scoring import Score, score
from magicbert.supernet.supernet import Supernet

Watch = Callable[[Sequence[Architecture]], Iterable[Architecture]]


class Evaluator(Protocol):
    """Scores a set of architectures at once: how it shares work between them is its business."""

    def __call__(
        self, architectures: Collection[Architecture], num_batches: int
    ) -> dict[Architecture, Score]:
        """Returns the score of each architecture on the first ``num_batches`` dev batches."""
        ...


class InheritedWeights:
    """Runs one path after the other; no path is ever scored twice on the same batches.

    Args:
        supernet: trained weights, on the device to compute on.
        objective: the task loss.
        batches: all dev batches that may be asked for, in their fixed order.
        scores: what is known from before; new scores are added to it.
        watch: iterates over the paths still to be scored, showing progress.
    """

    def __init__(
        self,
        supernet: Supernet,
        objective: Objective,
        batches: Sequence[Any],
        *,
        scores: ScoreFile | None = None,
        watch: Watch = iter,
    ) -> None:
        self.supernet = supernet
        self.objective = objective
        self.batches = batches
        self.scores = scores if scores is not None else ScoreFile()
        self.watch = watch

    def __call__(
        self, architectures: Collection[Architecture], num_batches: int
    ) -> dict[Architecture, Score]:
        """Returns the score of each architecture on the first ``num_batches`` dev batches.

        Raises:
            UserError: a loss is not finite.
        """
        unknown = [a for a in architectures if self.scores.get(a, num_batches) is None]
        for architecture in self.watch(unknown):
            result = score(self.supernet, self.objective, self.batches[:num_batches], architecture)
            if not math.isfinite(result.loss):
                raise UserError(
                    f"the supernet's loss on {architecture} is {result.loss}: its training "
                    "diverged or its weights are damaged"
                )
            self.scores.add(architecture, num_batches, result)
        return {a: self.scores[a, num_batches] for a in architectures}
