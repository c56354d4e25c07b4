"""What every kind of task gives when a trained model is evaluated."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import transformers
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from magicbert.finetune.distillation import Lesson
from magicbert.finetune.pretrained import Pretrained

Row = dict[str, Any]
Logits = NDArray[np.float64]  # [rows, ...]


class EncodedRows(Dataset[Row]):
    """Rows as token ids, with labels where there are any."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self.rows = rows

    def __len__(self) -> int:
        """Returns the number of rows."""
        return len(self.rows)

    def __getitem__(self, index: int) -> Row:
        """Returns one row."""
        return self.rows[index]

    def shortest_first(self) -> tuple[EncodedRows, list[int]]:
        """Returns the rows ordered by length, and where each stood: batches need least padding."""
        order = sorted(range(len(self)), key=lambda index: len(self.rows[index]["input_ids"]))
        return EncodedRows([self.rows[index] for index in order]), order


@dataclass(frozen=True)
class Evaluation:
    """What one model is worth on one task.

    Attributes:
        metrics: every metric, 0..1 where it is a share.
        files: texts of the prediction files, by their names.
        diverged: the model gave values that are not finite; its metrics are all 0.
        details: what else the result row says.
    """

    metrics: Mapping[str, float]
    files: Mapping[str, str]
    diverged: bool
    details: Mapping[str, Any] = field(default_factory=dict)


class Encoded(Protocol):
    """A task whose rows are tokens: all that a cell of the grid needs of it."""

    @property
    def train(self) -> EncodedRows:
        """Rows to train on."""

    @property
    def padding(self) -> Callable[[Sequence[Row]], dict[str, Tensor]]:
        """Collates rows to a batch."""

    @property
    def lesson(self) -> Lesson | None:
        """What a teacher has said about the training rows; ``None`` without a teacher."""

    def load(self, start: Pretrained, weights: str) -> Any:
        """Returns the model with a head for this task.

        Args:
            start: the model.
            weights: folder to load instead of the model's own weights; empty = those.
        """

    def evaluate(self, trainer: transformers.Trainer) -> Evaluation:
        """Returns metrics and prediction files of the trained model."""


def predict(trainer: transformers.Trainer, rows: EncodedRows) -> tuple[Logits, ...]:
    """Returns the model's outputs ``[rows, ...]`` in the order of the rows.

    Outputs of one entry per token are padded behind the row.
    """
    ordered, order = rows.shortest_first()
    outputs = trainer.predict(ordered).predictions
    restored = []
    for output in outputs if isinstance(outputs, tuple) else (outputs,):
        values = np.asarray(output, dtype=np.float64)
        logits: Logits = np.empty_like(values)
        logits[order] = values
        restored.append(logits)
    return tuple(restored)
