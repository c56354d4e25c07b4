"""What a path is worth with the weights as they are: its loss and accuracy on fixed batches."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

import torch
from torch import Tensor

from magicbert.errors import UserError
from magicbert.space import Architecture
from magicbert.supernet.objective import LossOutput, Objective
from magicbert.supernet.supernet import Supernet


@dataclass(frozen=True, slots=True)
class Score:
    """Sums over the loss terms of the batches; sums of two parts can be added.

    Attributes:
        loss_sum: sum of the losses, in nats.
        correct: terms predicted right.
        count: number of terms.
        logged: sums of the metrics that the objective logs, in its order.
    """

    loss_sum: float
    correct: int
    count: int
    logged: tuple[float, ...] = ()

    def __add__(self, other: Score) -> Score:
        return Score(
            self.loss_sum + other.loss_sum,
            self.correct + other.correct,
            self.count + other.count,
            tuple(a + b for a, b in zip_longest(self.logged, other.logged, fillvalue=0.0)),
        )

    @property
    def loss(self) -> float:
        """Mean loss per term, in nats."""
        return self.loss_sum / self._terms()

    @property
    def accuracy(self) -> float:
        """Share of the terms predicted right."""
        return self.correct / self._terms()

    def _terms(self) -> int:
        if self.count == 0:
            raise UserError("the dev batches hold nothing to predict: give more of them")
        return self.count


@contextmanager
def dropout_off(supernet: Supernet, paths: Iterable[Architecture]) -> Iterator[None]:
    """Runs the block with the paths in eval mode; every module's own mode comes back.

    Only what the paths run is switched: a walk over every operator of a large space would cost
    as much as the forward it is for.
    """
    parts = {part: part.training for part in supernet.path_modules(*paths)}
    for part in parts:
        part.training = False
    try:
        yield
    finally:
        for part, mode in parts.items():
            part.training = mode


@contextmanager
def evaluation_mode(supernet: Supernet, architecture: Architecture) -> Iterator[None]:
    """Runs the block without dropout and without gradients."""
    with dropout_off(supernet, (architecture,)), torch.no_grad():
        yield


def score(
    supernet: Supernet, objective: Objective, batches: Sequence[Any], architecture: Architecture
) -> Score:
    """Scores one path with the current weights, dropout off; see `batch_scores`."""
    scores = batch_scores(supernet, objective, batches, architecture)
    return sum(scores, start=Score(0.0, 0, 0))


def score_sums(objective: Objective, loss: LossOutput) -> Tensor:
    """Returns the sums that make a `Score`, fp64 on the device: loss, correct, what is logged."""
    metrics = (loss.metrics[name] for name in ("correct", *objective.logged))
    return torch.stack([value.double() for value in (loss.loss_sum, *metrics)])


def batch_scores(
    supernet: Supernet, objective: Objective, batches: Sequence[Any], architecture: Architecture
) -> tuple[Score, ...]:
    """Scores one path on each batch with the current weights, dropout off.

    The sums stay on the device until the last batch is through: one host sync per path.

    Args:
        supernet: its device is where the batches are moved to.
        objective: must report ``correct``.
        batches: fixed batches of the held-out split.
        architecture: the path.
    """
    supernet.space.check(architecture)
    device = next(supernet.parameters()).device
    sums, counts = [], []
    with evaluation_mode(supernet, architecture):
        for batch in batches:
            result = objective(supernet, batch.to(device), architecture)
            sums.append(score_sums(objective, result))
            counts.append(result.count)
    values = torch.stack(sums).tolist() if sums else []
    return tuple(
        Score(loss_sum, round(correct), count, tuple(logged))
        for (loss_sum, correct, *logged), count in zip(values, counts, strict=True)
    )
