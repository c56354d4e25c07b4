"""One task with its rows, as the grid sees it: GLUE and SQuAD are the same there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from magicbert.finetune.encoding import EncodedTask, encode_task
from magicbert.finetune.evaluation import Encoded
from magicbert.finetune.examples import TaskData
from magicbert.finetune.submission import submission_name
from magicbert.finetune.teaching import GlueTeaching, Teaching


@dataclass(frozen=True)
class Predicted:
    """A prediction file that every cell of a task leaves.

    Attributes:
        file: its name.
        split: what is predicted.
        rows: how many predictions it holds.
    """

    file: str
    split: str
    rows: int


class Job(Protocol):
    """One task of the grid."""

    @property
    def name(self) -> str:
        """Name of the task."""

    @property
    def main_metric(self) -> str:
        """Name of the metric that ranks models."""

    @property
    def max_length(self) -> int:
        """Tokens of a row at most, as configuration, tokenizer and model allow."""

    @property
    def num_train(self) -> int:
        """Number of training examples."""

    @property
    def source(self) -> str:
        """Where the training examples come from."""

    @property
    def starts_from(self) -> str:
        """Task whose fine-tuned weights this one starts from if they are there; empty = none."""

    @property
    def is_start(self) -> bool:
        """Whether its best weights are kept for the tasks that start from it."""

    @property
    def teaching(self) -> Teaching | None:
        """The teacher beside the labels, if there is one."""

    def describe(self) -> dict[str, Any]:
        """Returns the record of what was read."""

    def settings(self) -> dict[str, Any]:
        """Returns what the result depends on besides the settings of the grid."""

    def encode(self) -> Encoded:
        """Returns the rows as tokens."""

    def predicted(self) -> Sequence[Predicted]:
        """Returns the prediction files of a cell."""


@dataclass(frozen=True)
class GlueJob:
    """A GLUE task.

    Attributes:
        data: its rows.
        tokenizer: the model's own.
        max_length: tokens of a row at most.
        mnli_warm_start: tasks that may do so start from the weights fine-tuned on MNLI.
        teaching: the teacher beside the labels, if there is one.
    """

    data: TaskData
    tokenizer: Any
    max_length: int
    mnli_warm_start: bool
    teaching: GlueTeaching | None = None

    @property
    def name(self) -> str:
        """Name of the task."""
        return self.data.task.name

    @property
    def main_metric(self) -> str:
        """Name of the metric that ranks models."""
        return self.data.task.main_metric

    @property
    def num_train(self) -> int:
        """Number of training rows."""
        return len(self.data.train)

    @property
    def source(self) -> str:
        """Where the training rows come from."""
        return self.data.train.source.name

    @property
    def starts_from(self) -> str:
        """MNLI, for the tasks that may start from it."""
        return "mnli" if self.mnli_warm_start and self.data.task.starts_from_mnli else ""

    @property
    def is_start(self) -> bool:
        """Whether this is MNLI, and others start from it."""
        return self.mnli_warm_start and self.name == "mnli"

    def describe(self) -> dict[str, Any]:
        """Returns the record of what was read."""
        return self.data.describe()

    def settings(self) -> dict[str, Any]:
        """Returns the length of the rows."""
        return {"max_length": self.max_length}

    def encode(self) -> EncodedTask:
        """Returns the rows as tokens, with the teacher's columns if there is one."""
        encoded = encode_task(self.data, self.tokenizer, self.max_length)
        return self.teaching.teach(encoded, self.data) if self.teaching else encoded

    def predicted(self) -> list[Predicted]:
        """Returns one submission per dev set, of its test rows if there are any."""
        found = []
        for item in self.data.parts:
            split, rows = (
                (item.part.dev, item.dev) if item.test is None else (item.part.test, item.test)
            )
            found.append(Predicted(submission_name(item.part), split, len(rows)))
        return found
