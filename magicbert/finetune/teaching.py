"""What a fine-tuned teacher says about the training rows of a task, once for all of its cells."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from magicbert.config.sections import FinetuneTeacherSection
from magicbert.finetune.distillation import (
    TEACHER,
    Lesson,
    TaughtPadding,
    class_error,
    score_error,
)
from magicbert.finetune.encoding import EncodedTask, Padding, encode, usable_length
from magicbert.finetune.evaluation import EncodedRows
from magicbert.finetune.examples import TaskData
from magicbert.finetune.tasks import Task
from magicbert.finetune.teacher import FinetunedTeacher, class_order


@dataclass(frozen=True, kw_only=True)
class Teaching:
    """A teacher of one task.

    Attributes:
        teacher: the model.
        section: its share and its temperature.
        tokenizer: the teacher's own.
    """

    teacher: FinetunedTeacher
    section: FinetuneTeacherSection
    tokenizer: Any

    def settings(self) -> dict[str, Any]:
        """Returns what a result depends on."""
        return {
            "teacher": self.teacher.start.identity,
            "weight": self.section.weight,
            "temperature": self.section.temperature,
        }

    def describe(self) -> dict[str, Any]:
        """Returns the record of the teacher and its share."""
        return {**self.settings(), "teacher": self.teacher.describe()}


@dataclass(frozen=True, kw_only=True)
class GlueTeaching(Teaching):
    """A teacher of a GLUE task; it reads the texts with its own tokenizer.

    Attributes:
        max_length: tokens of its rows at most.
        order: where in its logits each class of the task stands.
    """

    max_length: int
    order: Sequence[int]

    @classmethod
    def of(
        cls, teacher: FinetunedTeacher, section: FinetuneTeacherSection, task: Task, wanted: int
    ) -> GlueTeaching:
        """Returns the teaching of a task in rows of the wanted length, if they fit the teacher.

        Raises:
            UserError: the teacher has other classes, no tokenizer, or no room for a pair.
        """
        tokenizer = teacher.tokenizer()
        return cls(
            teacher=teacher, section=section, tokenizer=tokenizer,
            max_length=usable_length(wanted, tokenizer, teacher.start.max_positions),
            order=class_order(teacher, task),
        )  # fmt: skip

    def teach(self, encoded: EncodedTask, data: TaskData) -> EncodedTask:
        """Returns the task with the teacher's logits beside its training rows."""
        texts = dataclasses.replace(data.train, labels=None)
        rows = encode(texts, self.tokenizer, self.max_length)
        padding = Padding(self.tokenizer.pad_token_id, is_regression=False)
        answers = self.teacher.answers(rows, padding)
        in_order = [{"logits": answer["logits"][list(self.order)]} for answer in answers]
        error = score_error if data.task.is_regression else class_error
        return dataclasses.replace(
            encoded,
            train=beside(encoded.train, in_order),
            padding=TaughtPadding(encoded.padding),
            lesson=Lesson(error, self.section.weight, self.section.temperature),
        )


def beside(rows: EncodedRows, answers: Sequence[dict[str, Tensor]]) -> EncodedRows:
    """Returns rows with the teacher's columns."""
    return EncodedRows(
        [
            {**row, **{TEACHER + name: logits for name, logits in answer.items()}}
            for row, answer in zip(rows.rows, answers, strict=True)
        ]
    )
