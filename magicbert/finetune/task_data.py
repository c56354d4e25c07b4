"""Finds the rows of a task: embedded, a folder of TSV files, or the hub."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

from magicbert.config.sections import FinetuneSection
from magicbert.errors import UserError
from magicbert.finetune.embedded_task import write_embedded_task
from magicbert.finetune.examples import TaskData, take_subset
from magicbert.finetune.glue_folder import read_folder
from magicbert.finetune.glue_hub import read_hub
from magicbert.finetune.tasks import EMBEDDED, Task


def read_task(task: Task, settings: FinetuneSection, folder: Path) -> TaskData:
    """Returns all rows of a task, its training rows cut to ``max_train_rows``.

    Args:
        task: what to read.
        settings: where GLUE files lie, and how many rows to train on.
        folder: the stage's folder; the embedded task is written there.
    """
    data = read_rows(task, settings, folder)
    return dataclasses.replace(data, train=take_subset(data.train, settings.max_train_rows))


def read_rows(task: Task, settings: FinetuneSection, folder: Path) -> TaskData:
    """Returns all rows of a task."""
    if task is EMBEDDED:
        from magicbert.data.embedded import described_objects

        root = folder / "tasks"
        write_embedded_task(root, described_objects())
        return read_folder(task, root)
    source = glue_folder(settings)
    return read_hub(task) if source is None else read_folder(task, source)


def glue_folder(settings: FinetuneSection) -> Path | None:
    """Returns the folder of GLUE files, or ``None`` if the hub is to be asked.

    Raises:
        UserError: ``finetune.data`` names something that is not a folder.
    """
    if settings.data:
        folder = Path(os.path.expandvars(settings.data)).expanduser()
        if not folder.is_dir():
            raise UserError(f"finetune.data: {folder} is not a folder")
        return folder
    shared = os.environ.get("MAGICBERT_DATA", "")
    folder = Path(shared) / "glue"
    return folder if shared and folder.is_dir() else None
