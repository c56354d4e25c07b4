"""A fine-tuned model that others learn a task from: found, checked, and asked about rows."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor

from magicbert.bert.exported import MANIFEST, SCHEMA
from magicbert.errors import UserError
from magicbert.finetune.evaluation import EncodedRows, Row
from magicbert.finetune.pretrained import (
    Pretrained,
    describe_pretrained,
    load_reporting,
    load_tokenizer,
)
from magicbert.finetune.tasks import Task
from magicbert.records import read_record

ROWS_AT_ONCE = 64


@dataclass(frozen=True)
class Head:
    """What a kind of task puts on top of an encoder.

    Attributes:
        suffix: of the names of such models' classes in transformers.
        outputs: names of the logits that they give.
    """

    suffix: str
    outputs: tuple[str, ...]


CLASSIFIER = Head("ForSequenceClassification", ("logits",))
ANSWERER = Head("ForQuestionAnswering", ("start_logits", "end_logits"))


@dataclass(frozen=True)
class FinetunedTeacher:
    """A model that was fine-tuned on a task.

    Attributes:
        start: where it lies, and what it is.
        head: what it has on top.
        cell: learning rate, seed and score that a model of ours was fine-tuned with.
    """

    start: Pretrained
    head: Head
    cell: dict[str, Any]

    def describe(self) -> dict[str, Any]:
        """Returns its record."""
        return {"folder": self.start.name, "identity": self.start.identity, **self.cell}

    def tokenizer(self) -> Any:
        """Returns the tokenizer that comes with it."""
        return load_tokenizer(self.start)

    def config(self) -> Any:
        """Returns transformers' configuration of it."""
        return transformers.AutoConfig.from_pretrained(
            self.start.source, trust_remote_code=self.start.trust_remote_code
        )

    def answers(
        self, rows: EncodedRows, padding: Callable[[Sequence[Row]], dict[str, Tensor]]
    ) -> list[dict[str, Tensor]]:
        """Returns the logits of each row, by name; those per token without their padding.

        Args:
            rows: as its own tokenizer reads them.
            padding: collates them.

        Raises:
            UserError: its files lack its head, or it gives values that are not finite.
        """
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        model = self.load().eval().to(device)
        ordered, order = rows.shortest_first()
        found: list[dict[str, Tensor]] = [{} for _ in order]
        for first in range(0, len(ordered), ROWS_AT_ONCE):
            places = order[first : first + ROWS_AT_ONCE]
            batch = padding(ordered.rows[first : first + ROWS_AT_ONCE])
            with torch.inference_mode():
                outputs = model(**{name: value.to(device) for name, value in batch.items()})
            for name in self.head.outputs:
                for place, logits in zip(places, outputs[name].float().cpu(), strict=True):
                    # A copy: a view would keep the whole batch, padding included.
                    found[place][name] = self.own(logits, rows[place]).clone()
        if not all(value.isfinite().all() for row in found for value in row.values()):
            raise UserError(f"{self.start.name}: gives values that are not finite; it diverged")
        return found

    def own(self, logits: Tensor, row: Row) -> Tensor:
        """Returns the entries that are the row's own."""
        return logits[: len(row["input_ids"])] if self.head is ANSWERER else logits

    def load(self) -> Any:
        """Returns the model, in fp32."""
        kind = getattr(transformers, f"AutoModel{self.head.suffix}")
        model, found = load_reporting(kind, self.start, self.start.source)
        lost = sorted(str(key) for key in found["missing_keys"])
        if lost:
            raise UserError(f"{self.start.name}: not fine-tuned: its files lack {lost[0]}")
        return model


def find_teacher(
    folder: Path, task: str, head: Head, *, is_alone: bool, trust_remote_code: bool
) -> FinetunedTeacher:
    """Returns the teacher of one task.

    Args:
        folder: of a fine-tuning that kept its models, or of one model.
        task: name of the task.
        head: what the task's models have on top.
        is_alone: no other task is asked for.
        trust_remote_code: run code that comes with it.

    Raises:
        UserError: there is none, it is damaged, or it is of another task or kind.
    """
    if not (folder / "config.json").is_file():
        folder = kept_folder(folder, task)
    elif not is_alone:
        raise UserError(
            f"distillation.teacher: {folder} is one model, which teaches one task; for several "
            "give the folder of a fine-tuning that ran with --finetune.keep_model true"
        )
    start = describe_pretrained(str(folder), str(folder), trust_remote_code)
    teacher = FinetunedTeacher(start, head, kept_cell(folder, task))
    classes = getattr(teacher.config(), "architectures", None) or ["none"]
    if not str(classes[0]).endswith(head.suffix):
        raise UserError(
            f"{folder}: not fine-tuned on {task}: it is a {classes[0]}, a teacher is a "
            f"model {head.suffix}"
        )
    return teacher


def kept_folder(folder: Path, task: str) -> Path:
    """Returns the model that a fine-tuning kept of a task.

    Raises:
        UserError: there is none.
    """
    model = folder / "models" / task
    if not (model / "config.json").is_file():
        raise UserError(
            f"distillation.teacher: {folder} holds no model fine-tuned on {task}: there is neither "
            f"config.json nor models/{task}; fine-tune one with --finetune.keep_model true"
        )
    return model


def kept_cell(folder: Path, task: str) -> dict[str, Any]:
    """Returns which cell of the grid a kept model comes from; empty if it is not one of ours.

    Raises:
        UserError: it was fine-tuned on another task.
    """
    if not (folder / MANIFEST).is_file():
        return {}
    cell = read_record(folder / MANIFEST, SCHEMA)["provenance"].get("cell")
    if cell is None:
        return {}
    if cell["task"] != task:
        raise UserError(
            f"{folder}: fine-tuned on {cell['task']}; {task} needs a teacher fine-tuned on {task}"
        )
    return {name: cell[name] for name in ("learning_rate", "seed", "score")}


def class_order(teacher: FinetunedTeacher, task: Task) -> list[int]:
    """Returns where in the teacher's logits each class of a task stands.

    A model that names its classes otherwise than by the task's names, or by transformers' own
    ``LABEL_0``, is not known to mean the same.

    Raises:
        UserError: it has other classes.
    """
    config = teacher.config()
    names = [str(config.id2label[number]) for number in range(config.num_labels)]
    if task.is_regression and len(names) == 1:
        return [0]
    if len(names) == task.num_outputs:
        if names == [f"LABEL_{number}" for number in range(len(names))]:
            return list(range(len(names)))
        if sorted(names) == sorted(task.labels):
            return [names.index(label) for label in task.labels]
    wanted = "one score" if task.is_regression else f"classes {json.dumps(task.labels)}"
    raise UserError(
        f"{teacher.start.name}: has classes {json.dumps(names)[:200]}; {task.name} needs {wanted}"
    )
