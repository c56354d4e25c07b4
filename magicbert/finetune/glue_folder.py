"""GLUE tasks from a folder of TSV files, one sub-folder per task.

Of several files for one split the first of this order is read, and the record names it:
``train.tsv``, ``train.tsv.gz``, then the same two for ``train-subset`` (part of the original
rows), ``train-bimpm`` (another published split), ``train-derived`` (rows made by the task's own
recipe); likewise for the dev and test files.
"""

from __future__ import annotations

import math
from pathlib import Path

from magicbert.errors import UserError
from magicbert.finetune.examples import Examples, PartExamples, Source, TaskData
from magicbert.finetune.tasks import Task
from magicbert.finetune.tsv import Table, error_at, read_table

VARIANTS = ("", "-subset", "-bimpm", "-derived")
ENDINGS = (".tsv", ".tsv.gz")


def read_folder(task: Task, root: Path) -> TaskData:
    """Reads train, dev and (where there are any) test files of one task.

    Args:
        task: what to read.
        root: folder that holds ``CoLA/``, ``SST-2/`` and so on.

    Raises:
        UserError: a file is missing or wrong, with file, line and column.
    """
    folder = root / task.folder
    train = read_labelled(task, require_file(folder, "train"))
    parts = []
    for position, part in enumerate(task.parts):
        dev = require_file(folder, part.dev) if position == 0 else find_file(folder, part.dev)
        if dev is None:
            continue
        test = find_file(folder, part.test)
        parts.append(
            PartExamples(
                part, read_labelled(task, dev), None if test is None else read_test(task, test)
            )
        )
    return TaskData(task, train, tuple(parts))


def find_file(folder: Path, stem: str) -> Path | None:
    """Returns the first file of a split in the stated order, or ``None``."""
    candidates = (folder / f"{stem}{variant}{end}" for variant in VARIANTS for end in ENDINGS)
    return next((path for path in candidates if path.is_file()), None)


def require_file(folder: Path, stem: str) -> Path:
    """Returns the file of a split; raises `UserError` saying which names were tried."""
    path = find_file(folder, stem)
    if path is None:
        names = ", ".join(f"{stem}{variant}" for variant in VARIANTS)
        raise UserError(
            f"{folder}: no {stem} file; looked for {names}, each as .tsv and .tsv.gz. "
            "Set finetune.data to the folder that holds the GLUE task folders"
        )
    return path


def read_labelled(task: Task, path: Path) -> Examples:
    """Reads a train or dev file."""
    table = read_table(path, task.header, task.max_ragged_rows)
    texts = read_texts(task, table)
    position = table.column(task.label)
    labels = tuple(
        read_label(task, path, line, position, row[position])
        for line, row in zip(table.lines, table.rows, strict=True)
    )
    return Examples(texts, labels, source_of(table))


def read_test(task: Task, path: Path) -> Examples:
    """Reads a test file: it has a header in every task, and no labels."""
    table = read_table(path)
    return Examples(read_texts(task, table), None, source_of(table))


def read_texts(task: Task, table: Table) -> tuple[tuple[str, ...], ...]:
    """Returns the text columns."""
    positions = [table.column(name) for name in task.texts]
    return tuple(tuple(row[position] for row in table.rows) for position in positions)


def read_label(task: Task, path: Path, line: int, position: int, text: str) -> float:
    """Returns the class number or the target that ``text`` spells."""
    if not task.is_regression:
        if text not in task.labels:
            known = ", ".join(task.labels)
            raise error_at(path, line, position + 1, f"unknown label {text!r}; known: {known}")
        return task.labels.index(text)
    low, high = task.bounds
    try:
        value = float(text)
    except ValueError as error:
        raise error_at(path, line, position + 1, f"{text!r} is not a number") from error
    if not math.isfinite(value) or not low <= value <= high:
        what = f"target {text!r} is not between {low:g} and {high:g}"
        raise error_at(path, line, position + 1, what)
    return value


def source_of(table: Table) -> Source:
    """Returns what the record says about a file."""
    return Source(table.path.name, table.sha256, len(table.rows), table.skipped_lines)
