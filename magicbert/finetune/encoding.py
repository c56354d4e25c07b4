"""Token ids of a task's rows, made once per task, and their padding to the longest of a batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import transformers
from torch import Tensor

from magicbert.errors import UserError
from magicbert.finetune.distillation import Lesson
from magicbert.finetune.evaluation import EncodedRows, Evaluation, Row, predict
from magicbert.finetune.examples import Examples, PartExamples, TaskData
from magicbert.finetune.glue_scoring import decide, score
from magicbert.finetune.pretrained import Pretrained, load_classifier
from magicbert.finetune.submission import submission_name, submission_text
from magicbert.finetune.tasks import Part, Task


@dataclass(frozen=True)
class EncodedPart:
    """The dev rows of one part, its labels, and the rows it is predicted on."""

    part: Part
    dev: EncodedRows
    dev_labels: tuple[float, ...]
    test: EncodedRows | None


@dataclass(frozen=True)
class EncodedTask:
    """A task ready for training.

    Attributes:
        task: what it is.
        train: rows to train on.
        parts: what it is scored on.
        padding: makes batches.
        lesson: how to learn from a teacher's columns in ``train``; ``None`` = there are none.
    """

    task: Task
    train: EncodedRows
    parts: tuple[EncodedPart, ...]
    padding: Callable[[Sequence[Row]], dict[str, Tensor]]
    lesson: Lesson | None = None

    def load(self, start: Pretrained, weights: str) -> Any:
        """Returns the model with a classifier or a regression on top."""
        return load_classifier(start, self.task, weights)

    def evaluate(self, trainer: transformers.Trainer) -> Evaluation:
        """Returns the metrics on dev, and a submission of the test rows, else of the dev rows."""
        logits = [predict(trainer, item.dev)[0] for item in self.parts]
        metrics, diverged = score(
            self.task,
            [
                (item.part, item.dev_labels, values)
                for item, values in zip(self.parts, logits, strict=True)
            ],
        )
        files = {}
        for item, values in zip(self.parts, logits, strict=True):
            final = values if item.test is None else predict(trainer, item.test)[0]
            text = submission_text(self.task, decide(self.task, final))
            files[submission_name(item.part)] = text
        return Evaluation(metrics, files, diverged)


@dataclass(frozen=True)
class Padding:
    """Collates rows to ``[rows, longest]`` tensors, padded on the right.

    Attributes:
        pad_token_id: fills ``input_ids``.
        is_regression: labels become floats.
    """

    pad_token_id: int
    is_regression: bool

    def __call__(self, rows: Sequence[Row]) -> dict[str, Tensor]:
        """Returns one batch; ``attention_mask`` is 1 on tokens and 0 on padding."""
        lengths = torch.tensor([len(row["input_ids"]) for row in rows])
        longest = int(lengths.max())
        batch: dict[str, Tensor] = {
            name: pad(rows, name, longest, self.pad_token_id if name == "input_ids" else 0)
            for name in ("input_ids", "token_type_ids")
            if name in rows[0]
        }
        batch["attention_mask"] = (torch.arange(longest) < lengths[:, None]).long()
        if "labels" in rows[0]:
            kind = torch.float32 if self.is_regression else torch.int64
            batch["labels"] = torch.tensor([row["labels"] for row in rows], dtype=kind)
        return batch


def pad(rows: Sequence[Row], name: str, longest: int, filler: int) -> Tensor:
    """Returns one field of the rows as ``[rows, longest]`` int64."""
    return torch.tensor([row[name] + [filler] * (longest - len(row[name])) for row in rows])


def encode_task(data: TaskData, tokenizer: Any, max_length: int) -> EncodedTask:
    """Tokenises every split of a task; rows are cut at ``max_length``, the longer text first."""
    parts = tuple(encode_part(item, tokenizer, max_length) for item in data.parts)
    train = encode(data.train, tokenizer, max_length)
    padding = Padding(tokenizer.pad_token_id, data.task.is_regression)
    return EncodedTask(data.task, train, parts, padding)


def encode_part(item: PartExamples, tokenizer: Any, max_length: int) -> EncodedPart:
    """Tokenises the dev and test rows of one part."""
    assert item.dev.labels is not None
    test = None if item.test is None else encode(item.test, tokenizer, max_length)
    return EncodedPart(item.part, encode(item.dev, tokenizer, max_length), item.dev.labels, test)


def encode(examples: Examples, tokenizer: Any, max_length: int) -> EncodedRows:
    """Tokenises one split."""
    columns = [list(column) for column in examples.texts]
    encoding = tokenizer(
        *columns, truncation=True, max_length=max_length, return_attention_mask=False
    )
    rows: list[Row] = [
        dict(zip(encoding.keys(), fields, strict=True))
        for fields in zip(*encoding.values(), strict=True)
    ]
    if examples.labels is not None:
        for row, label in zip(rows, examples.labels, strict=True):
            row["labels"] = label
    return EncodedRows(rows)


def usable_length(wanted: int, tokenizer: Any, max_positions: int) -> int:
    """Returns the row length that configuration, tokenizer and model all allow.

    Raises:
        UserError: a pair of texts has no room in it.
    """
    length = int(min(wanted, tokenizer.model_max_length, max_positions or wanted))
    needed = tokenizer.num_special_tokens_to_add(pair=True) + 2
    if length < needed:
        raise UserError(
            f"finetune.max_length: rows of {length} tokens cannot hold a pair; {needed} are needed"
        )
    return length
