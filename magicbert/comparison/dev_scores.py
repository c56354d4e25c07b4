"""Scores of any form of a model on dev rows, the same rows and rule for every form."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from magicbert.data.batch import TokenBatch
from magicbert.finetune.cell import EVAL_BATCH_SIZE
from magicbert.finetune.encoding import EncodedTask
from magicbert.finetune.glue_scoring import score

Batch = Mapping[str, Tensor]
Form = Callable[[Batch], Sequence[Tensor]]


class DevRows(Protocol):
    """Rows that forms of a model are scored on."""

    @property
    def metric(self) -> str:
        """Name of the score, of which 1 is the best."""
        ...

    @property
    def beside(self) -> tuple[str, ...]:
        """Names of further metrics that are worth a column."""
        ...

    @property
    def source(self) -> str:
        """What the rows are, in words."""
        ...

    @property
    def num_rows(self) -> int:
        """How many rows there are."""
        ...

    def batches(self) -> Iterator[Batch]:
        """Yields the inputs."""
        ...

    def scores(self, outputs: Sequence[Sequence[Tensor]]) -> dict[str, float]:
        """Returns every metric of a form by its name, from what it gave for the batches."""
        ...


@dataclass(frozen=True)
class MaskedRows:
    """Masked rows of prepared data; packed documents are read as one.

    Attributes:
        masked: the batches.
        inputs: names of what the model is called with.
    """

    masked: Sequence[TokenBatch]
    inputs: Sequence[str]
    metric: str = "masked-token accuracy"
    beside: tuple[str, ...] = ()
    source: str = "held-out rows of the prepared data"

    @property
    def num_rows(self) -> int:
        """How many rows there are."""
        return sum(len(batch.input_ids) for batch in self.masked)

    def batches(self) -> Iterator[Batch]:
        """Yields the inputs."""
        for batch in self.masked:
            fields = {
                "input_ids": batch.input_ids.long(),
                "attention_mask": (batch.segment_ids > 0).long(),
                "token_type_ids": torch.zeros_like(batch.input_ids).long(),
            }
            yield {name: fields[name] for name in self.inputs}

    def scores(self, outputs: Sequence[Sequence[Tensor]]) -> dict[str, float]:
        """Returns the share of the predicted tokens that are right."""
        right = total = 0
        for batch, (logits,) in zip(self.masked, outputs, strict=True):
            chosen = logits.flatten(0, 1)[batch.predicted_positions.long()].argmax(-1)
            right += int((chosen == batch.labels).sum())
            total += len(batch.labels)
        return {self.metric: right / total}


@dataclass(frozen=True)
class TaskRows:
    """Dev rows of a GLUE task.

    Attributes:
        task: its encoded rows; training rows are not read.
        inputs: names of what the model is called with.
        source: what the rows are, in words.
    """

    task: EncodedTask
    inputs: Sequence[str]
    source: str

    @property
    def metric(self) -> str:
        """Name of the score."""
        return self.task.task.main_metric

    @property
    def beside(self) -> tuple[str, ...]:
        """Names of the task's further metrics."""
        return self.task.task.metrics[1:]

    @property
    def num_rows(self) -> int:
        """Rows of the dev set that gives the score."""
        return len(self.task.parts[0].dev)

    def batches(self) -> Iterator[Batch]:
        """Yields the inputs, shorter rows first, so that they need little padding."""
        ordered, _ = self.task.parts[0].dev.shortest_first()
        for first in range(0, len(ordered), EVAL_BATCH_SIZE):
            batch = self.task.padding(ordered.rows[first : first + EVAL_BATCH_SIZE])
            yield {name: batch[name] for name in self.inputs}

    def scores(self, outputs: Sequence[Sequence[Tensor]]) -> dict[str, float]:
        """Returns the task's metrics."""
        part = self.task.parts[0]
        _, order = part.dev.shortest_first()
        ordered = np.concatenate([logits.double().numpy() for (logits,) in outputs])
        values = np.empty_like(ordered)
        values[order] = ordered
        metrics, _ = score(self.task.task, [(part.part, part.dev_labels, values)])
        return metrics
