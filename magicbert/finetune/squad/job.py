"""A SQuAD task, as the grid sees it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from magicbert.bert.modeling.answer_spans import WindowShape, check_room
from magicbert.config.sections import SquadSection
from magicbert.errors import UserError
from magicbert.finetune.job import Predicted
from magicbert.finetune.squad.answering import file_names
from magicbert.finetune.squad.encoding import EncodedSquad, encode_squad
from magicbert.finetune.squad.squad_data import SquadData
from magicbert.finetune.squad.teaching import SquadTeaching


@dataclass(frozen=True)
class SquadJob:
    """A SQuAD task.

    Attributes:
        data: its questions.
        tokenizer: the model's own, a fast one.
        shape: of the windows.
        squad: how answers are found.
        teaching: the teacher beside the labels, if there is one.
    """

    data: SquadData
    tokenizer: Any
    shape: WindowShape
    squad: SquadSection
    teaching: SquadTeaching | None = None

    @property
    def name(self) -> str:
        """Name of the task."""
        return self.data.task.name

    @property
    def main_metric(self) -> str:
        """Name of the metric that ranks models."""
        return self.data.task.main_metric

    @property
    def max_length(self) -> int:
        """Tokens of a window at most."""
        return self.shape.length

    @property
    def num_train(self) -> int:
        """Number of training questions."""
        return len(self.data.train)

    @property
    def source(self) -> str:
        """Where the training questions come from."""
        return self.data.train.source.name

    @property
    def starts_from(self) -> str:
        """Version 1.1, for version 2.0 if it is asked for."""
        return self.data.task.starts_from if self.squad.v1_warm_start else ""

    @property
    def is_start(self) -> bool:
        """Whether this is version 1.1, and version 2.0 may start from it."""
        return self.squad.v1_warm_start and self.name == "squad"

    def describe(self) -> dict[str, Any]:
        """Returns the record of what was read."""
        return self.data.describe()

    def settings(self) -> dict[str, Any]:
        """Returns how windows are cut and answers found."""
        return {
            "max_length": self.shape.length,
            "overlap": self.shape.overlap,
            "max_question_tokens": self.shape.question_length,
            "max_answer_tokens": self.squad.max_answer_tokens,
            "num_best": self.squad.num_best,
        }

    def encode(self) -> EncodedSquad:
        """Returns the windows, with the teacher's columns if there is one."""
        encoded = encode_squad(self.data, self.tokenizer, self.shape, self.squad)
        return self.teaching.teach(encoded, self.data) if self.teaching else encoded

    def predicted(self) -> list[Predicted]:
        """Returns the files that the official scripts read."""
        return [Predicted(name, "dev", len(self.data.dev)) for name in file_names(self.data.task)]


def window_shape(squad: SquadSection, tokenizer: Any, max_positions: int) -> WindowShape:
    """Returns the windows that configuration, tokenizer and model all allow.

    Args:
        squad: what is wanted.
        tokenizer: of the model.
        max_positions: the longest row that the model reads; 0 = it does not say.

    Raises:
        UserError: the tokenizer does not know characters, or a window has no room for a context.
    """
    if not tokenizer.is_fast:
        raise UserError(
            "squad: this model's tokenizer does not say which characters a token stands for; "
            "a fast tokenizer (tokenizer.json) does"
        )
    length = int(
        min(squad.max_length, tokenizer.model_max_length, max_positions or squad.max_length)
    )
    shape = WindowShape(length, squad.overlap, squad.max_question_tokens)
    try:
        check_room(tokenizer, shape)
    except ValueError as error:
        raise UserError(
            f"squad: {error}; lower squad.overlap or squad.max_question_tokens"
        ) from error
    return shape
