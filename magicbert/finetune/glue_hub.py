"""GLUE tasks from the Hugging Face hub, for those who have no folder of TSV files."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from magicbert.errors import UserError
from magicbert.finetune.examples import Examples, PartExamples, Source, TaskData
from magicbert.finetune.tasks import Task
from magicbert.records import digest_of

REPOSITORY = "nyu-mll/glue"


def read_hub(task: Task) -> TaskData:
    """Downloads one task, or reads it from the local cache of `datasets`.

    Raises:
        UserError: the task is not on the hub, or the hub cannot be reached.
    """
    import datasets

    try:
        splits = datasets.load_dataset(REPOSITORY, task.hub_name)
    except (OSError, ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(
            f"task {task.name}: {REPOSITORY} cannot be loaded ({reason}). Give a folder of GLUE "
            "TSV files as finetune.data, or set MAGICBERT_DATA to a folder that holds glue/"
        ) from error
    return convert_splits(task, splits)


def convert_splits(task: Task, splits: Mapping[str, Any]) -> TaskData:
    """Returns the rows of hub splits; test splits carry no labels."""
    parts = []
    for part in task.parts:
        dev = convert_split(task, part.hub_dev, splits[part.hub_dev])
        test = None
        if part.hub_test in splits:
            test = convert_split(task, part.hub_test, splits[part.hub_test], labelled=False)
        parts.append(PartExamples(part, dev, test))
    return TaskData(task, convert_split(task, "train", splits["train"]), tuple(parts))


def convert_split(task: Task, name: str, split: Any, *, labelled: bool = True) -> Examples:
    """Returns the rows of one hub split, whose classes are numbered in the order of ours.

    Raises:
        UserError: a labelled split holds a label outside the task's.
    """
    texts = tuple(tuple(split[column]) for column in task.hub_texts)
    labels = tuple(split["label"]) if labelled else None
    if labels is not None and not task.is_regression:
        allowed = range(len(task.labels))
        bad = next((row for row, label in enumerate(labels) if label not in allowed), None)
        if bad is not None:
            raise UserError(f"{REPOSITORY}/{task.hub_name}: {name} row {bad}: label {labels[bad]}")
    digest = digest_of([texts, labels])
    source = Source(f"{REPOSITORY}/{task.hub_name}:{name}", digest, len(split))
    return Examples(texts, labels, source)
