"""Prediction files in the format that the GLUE server takes."""

from __future__ import annotations

from pathlib import Path

from magicbert.finetune.metrics import Values
from magicbert.finetune.tasks import Task
from magicbert.records import write_text_atomically


def write_submission(path: Path, task: Task, predictions: Values) -> None:
    """Writes ``index<TAB>prediction`` with the official label names; targets get three decimals."""
    lines = ["index\tprediction"]
    lines += [f"{index}\t{spell(task, value)}" for index, value in enumerate(predictions)]
    write_text_atomically(path, "\n".join(lines) + "\n")


def spell(task: Task, value: float) -> str:
    """Returns a prediction as GLUE spells it."""
    return f"{value:.3f}" if task.is_regression else task.labels[int(value)]
