"""Token windows of a task's questions, and what a trained model makes of them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import transformers
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from magicbert.bert.modeling.answer_spans import Window, WindowShape, answer_tokens, cut_windows
from magicbert.config.sections import SquadSection
from magicbert.finetune.distillation import Lesson
from magicbert.finetune.evaluation import EncodedRows, Evaluation, Row, predict
from magicbert.finetune.pretrained import Pretrained, load_answerer
from magicbert.finetune.squad.answering import answer_questions, evaluate_answers
from magicbert.finetune.squad.questions import Question
from magicbert.finetune.squad.squad_data import SquadData

LOGGER = logging.getLogger("magicbert")
QUESTIONS_AT_ONCE = 256


@dataclass(frozen=True)
class WindowPadding:
    """Collates windows to ``[rows, longest]`` tensors, padded on the right.

    Attributes:
        pad_token_id: fills ``input_ids``.
    """

    pad_token_id: int

    def __call__(self, rows: Sequence[Row]) -> dict[str, Tensor]:
        """Returns one batch; ``attention_mask`` is 1 on tokens and 0 on padding."""
        lengths = torch.tensor([len(row["input_ids"]) for row in rows])
        batch: dict[str, Tensor] = {
            name: pad_sequence([row[name] for row in rows], batch_first=True, padding_value=filler)
            .long()
            for name, filler in (("input_ids", self.pad_token_id), ("token_type_ids", 0))
            if name in rows[0]
        }  # fmt: skip
        batch["attention_mask"] = (torch.arange(int(lengths.max())) < lengths[:, None]).long()
        for name in ("start_positions", "end_positions"):
            if name in rows[0]:
                batch[name] = torch.tensor([row[name] for row in rows])
        return batch


@dataclass(frozen=True)
class EncodedSquad:
    """A task ready for training.

    Attributes:
        data: its questions.
        settings: how answers are found.
        train: windows with the positions of the answer; "no answer" where it is not inside.
        dev: the windows of each dev question.
        padding: makes batches.
        lesson: how to learn from a teacher's columns in ``train``; ``None`` = there are none.
    """

    data: SquadData
    settings: SquadSection
    train: EncodedRows
    dev: tuple[tuple[Window, ...], ...]
    padding: Callable[[Sequence[Row]], dict[str, Tensor]]
    lesson: Lesson | None = None

    def load(self, start: Pretrained, weights: str) -> Any:
        """Returns the model with the two ends of an answer on top."""
        return load_answerer(start, weights)

    def evaluate(self, trainer: transformers.Trainer) -> Evaluation:
        """Returns the scores on dev, and the prediction files of the official scripts."""
        rows = self.dev_rows()
        starts, ends = predict(trainer, rows)[:2]
        logits = list(zip(torch.from_numpy(starts), torch.from_numpy(ends), strict=True))
        result = self.judge(logits)
        counts = {"train_windows": len(self.train), "dev_windows": len(rows)}
        return Evaluation(
            result.metrics, result.files, result.diverged, {**result.details, **counts}
        )

    def dev_rows(self) -> EncodedRows:
        """Returns the windows of all dev questions, one behind the other."""
        return EncodedRows([as_row(window) for windows in self.dev for window in windows])

    def judge(self, logits: Sequence[tuple[Tensor, Tensor]]) -> Evaluation:
        """Returns what a model is worth that gave these start and end logits for the dev rows."""
        answered = answer_questions(self.data.dev.rows, self.dev, logits, self.settings)
        return evaluate_answers(self.data.task, self.data.dev.rows, answered)


def encode_squad(
    data: SquadData, tokenizer: Any, shape: WindowShape, settings: SquadSection
) -> EncodedSquad:
    """Cuts the windows of a task.

    Args:
        data: its questions.
        tokenizer: a fast one.
        shape: of the windows.
        settings: how answers are found.
    """
    train = EncodedRows(list(training_rows(data, tokenizer, shape)))
    dev = tuple(tuple(windows) for _, windows in windows_of(data.dev.rows, tokenizer, shape))
    return EncodedSquad(data, settings, train, dev, WindowPadding(tokenizer.pad_token_id))


def windows_of(
    questions: Sequence[Question], tokenizer: Any, shape: WindowShape
) -> Iterator[tuple[Question, list[Window]]]:
    """Yields each question with its windows; a share of them is in memory at a time."""
    for first in range(0, len(questions), QUESTIONS_AT_ONCE):
        some = questions[first : first + QUESTIONS_AT_ONCE]
        texts, contexts = [row.text for row in some], [row.context for row in some]
        yield from zip(some, cut_windows(tokenizer, texts, contexts, shape), strict=True)


def training_rows(data: SquadData, tokenizer: Any, shape: WindowShape) -> Iterator[Row]:
    """Yields the windows of the training questions with the positions of their first answer."""
    num_lost = 0
    for question, windows in windows_of(data.train.rows, tokenizer, shape):
        places = [answer_place(window, question) for window in windows]
        num_lost += question.has_answer and not any(places)
        for window, place in zip(windows, places, strict=True):
            start, end = place or (window.null, window.null)
            yield {**as_row(window), "start_positions": start, "end_positions": end}
    if num_lost:
        LOGGER.warning(
            "%s: %d answers are longer than any window; their questions are trained as if they "
            "had none", data.task.name, num_lost,
        )  # fmt: skip


def answer_place(window: Window, question: Question) -> tuple[int, int] | None:
    """Returns the tokens of the first gold answer; ``None`` if it is not whole in the window."""
    if not question.has_answer:
        return None
    answer = question.answers[0]
    return answer_tokens(window, answer.start, answer.start + len(answer.text))


def as_row(window: Window) -> Row:
    """Returns what the model reads of a window."""
    row: Row = {"input_ids": window.input_ids}
    if window.token_type_ids is not None:
        row["token_type_ids"] = window.token_type_ids
    return row
