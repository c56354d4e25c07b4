"""Prediction files in the format that the GLUE server takes."""

from __future__ import annotations

from magicbert.finetune.metrics import Values
from magicbert.finetune.tasks import Part, Task


def submission_name(part: Part) -> str:
    """Returns the name of the file."""
    return f"{part.submission}.tsv"


def submission_text(task: Task, predictions: Values) -> str:
    """Returns lines ``index<TAB>prediction`` with the official label names.

    Targets of a regression get three decimals.
    """
    lines = ["index\tprediction"]
    lines += [f"{index}\t{spell(task, value)}" for index, value in enumerate(predictions)]
    return "\n".join(lines) + "\n"


def spell(task: Task, value: float) -> str:
    """Returns a prediction as GLUE spells it."""
    return f"{value:.3f}" if task.is_regression else task.labels[int(value)]
