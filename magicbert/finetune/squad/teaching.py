"""What a fine-tuned teacher says about the windows of a SQuAD task."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import torch

from magicbert.bert.modeling.answer_spans import WindowShape
from magicbert.config.sections import FinetuneTeacherSection
from magicbert.errors import UserError
from magicbert.finetune.distillation import Lesson, TaughtPadding, span_error
from magicbert.finetune.evaluation import EncodedRows
from magicbert.finetune.squad.encoding import EncodedSquad, WindowPadding, as_row, windows_of
from magicbert.finetune.squad.squad_data import SquadData
from magicbert.finetune.teacher import FinetunedTeacher
from magicbert.finetune.teaching import Teaching, beside


@dataclass(frozen=True, kw_only=True)
class SquadTeaching(Teaching):
    """A teacher of a SQuAD task; it reads the student's windows, token by token.

    Attributes:
        shape: of the windows.
    """

    shape: WindowShape

    @classmethod
    def of(
        cls,
        teacher: FinetunedTeacher,
        section: FinetuneTeacherSection,
        student_tokenizer: Any,
        shape: WindowShape,
    ) -> SquadTeaching:
        """Returns the teaching of windows that both models read.

        Raises:
            UserError: the teacher reads other tokens, or shorter rows.
        """
        tokenizer = teacher.tokenizer()
        if not tokenizer.is_fast or tokenizer.get_vocab() != student_tokenizer.get_vocab():
            raise other_tokens(teacher)
        longest = teacher.start.max_positions
        if longest and longest < shape.length:
            raise UserError(
                f"{teacher.start.name}: reads {longest} tokens at most, a window has "
                f"{shape.length}; lower squad.max_length"
            )
        return cls(teacher=teacher, section=section, tokenizer=tokenizer, shape=shape)

    def teach(self, encoded: EncodedSquad, data: SquadData) -> EncodedSquad:
        """Returns the task with the teacher's logits beside its training windows.

        The teacher's tokenizer cuts them again: token types are what its model has learnt.

        Raises:
            UserError: the two tokenizers have one vocabulary and use it differently.
        """
        cut = windows_of(data.train.rows, self.tokenizer, self.shape)
        rows = EncodedRows([as_row(window) for _, windows in cut for window in windows])
        if not same_tokens(encoded.train, rows):
            raise other_tokens(self.teacher)
        answers = self.teacher.answers(rows, WindowPadding(self.tokenizer.pad_token_id))
        return dataclasses.replace(
            encoded,
            train=beside(encoded.train, answers),
            padding=TaughtPadding(encoded.padding),
            lesson=Lesson(span_error, self.section.weight, self.section.temperature),
        )


def same_tokens(ours: EncodedRows, theirs: EncodedRows) -> bool:
    """Returns whether two lists of windows hold the same tokens."""
    return len(ours) == len(theirs) and all(
        torch.equal(one["input_ids"], other["input_ids"])
        for one, other in zip(ours.rows, theirs.rows, strict=True)
    )


def other_tokens(teacher: FinetunedTeacher) -> UserError:
    """Returns the error that student and teacher cannot share windows."""
    return UserError(
        f"{teacher.start.name}: reads other tokens than the student; on SQuAD teacher and student "
        "share one tokenizer, since a teacher says which tokens are an answer's ends"
    )
