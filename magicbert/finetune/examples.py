"""What every source of task data gives: texts, labels, and where they come from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from magicbert.finetune.tasks import Part, Task
from magicbert.records import digest_of

SUBSET_SEED = 20220523


@dataclass(frozen=True)
class Source:
    """Where rows come from.

    Attributes:
        name: file name inside the task's folder, or the name of a hub data set and split.
        sha256: digest of the file, or the fingerprint of the hub's split.
        num_rows: rows in the file, skipped ones not counted.
        skipped_lines: line numbers of ragged rows that were left out.
        subset: digest of the chosen row numbers; empty = all rows.
    """

    name: str
    sha256: str
    num_rows: int
    skipped_lines: tuple[int, ...] = ()
    subset: str = ""


@dataclass(frozen=True)
class Examples:
    """Rows of one split.

    Attributes:
        texts: one tuple of strings per text column.
        labels: class numbers, or targets of a regression; ``None`` for test rows.
        source: where they come from.
    """

    texts: tuple[tuple[str, ...], ...]
    labels: tuple[float, ...] | None
    source: Source

    def __len__(self) -> int:
        """Returns the number of rows."""
        return len(self.texts[0])


@dataclass(frozen=True)
class PartExamples:
    """Rows that one part is scored on, and those it is predicted on if there is a test file."""

    part: Part
    dev: Examples
    test: Examples | None


@dataclass(frozen=True)
class TaskData:
    """All rows of one task."""

    task: Task
    train: Examples
    parts: tuple[PartExamples, ...]

    def describe(self) -> dict[str, Any]:
        """Returns the record of what was read."""
        sources = {"train": describe_source(self.train)}
        for item in self.parts:
            sources[item.part.dev] = describe_source(item.dev)
            if item.test is not None:
                sources[item.part.test] = describe_source(item.test)
        return sources


def describe_source(examples: Examples) -> dict[str, Any]:
    """Returns the record of one split."""
    source = examples.source
    record: dict[str, Any] = {
        "file": source.name,
        "sha256": source.sha256,
        "rows_in_file": source.num_rows,
        "rows": len(examples),
    }
    if source.skipped_lines:
        record["skipped_ragged_lines"] = list(source.skipped_lines)
    if source.subset:
        record["subset"] = {"seed": SUBSET_SEED, "row_numbers_sha256": source.subset}
    return record


def take_subset(examples: Examples, max_rows: int) -> Examples:
    """Returns a fixed choice of rows in file order; smaller choices lie inside larger ones.

    Args:
        examples: all rows.
        max_rows: rows to keep; 0 = all.
    """
    if max_rows == 0 or max_rows >= len(examples):
        return examples
    order = np.random.Generator(np.random.Philox(SUBSET_SEED)).permutation(len(examples))
    chosen = sorted(int(row) for row in order[:max_rows])
    source = Source(
        name=examples.source.name,
        sha256=examples.source.sha256,
        num_rows=examples.source.num_rows,
        skipped_lines=examples.source.skipped_lines,
        subset=digest_of(chosen),
    )
    texts = tuple(pick(column, chosen) for column in examples.texts)
    labels = None if examples.labels is None else pick(examples.labels, chosen)
    return Examples(texts, labels, source)


def pick(values: Sequence[Any], rows: Sequence[int]) -> tuple[Any, ...]:
    """Returns ``values`` at ``rows``."""
    return tuple(values[row] for row in rows)
