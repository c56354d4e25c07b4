"""Exact match and F1 of the models that were fine-tuned on SQuAD."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from magicbert.report.reading import StageRecord
from magicbert.report.section import CsvTable, paragraph
from magicbert.report.tables import Mark, Value, table

METRICS = ("exact", "f1", "has_answer_f1", "no_answer_f1")
FIELDS = ("model", "task", "learning_rate", "seed", *METRICS, "null_threshold")

Row = dict[str, Any]


def is_squad(row: Row) -> bool:
    """Whether a row of ``results.json`` is scored by exact match."""
    return "exact" in row.get("metrics", {})


def glue_summary(result: Row) -> list[Row]:
    """Returns the summary of a result without the tasks of SQuAD."""
    of_squad = {row["task"] for row in result["rows"] if is_squad(row)}
    return [row for row in result["summary"] if row["task"] not in of_squad]


def squad_part(records: Sequence[StageRecord]) -> tuple[list[str], list[CsvTable]]:
    """Returns the table with its note, and the numbers behind it; nothing without SQuAD."""
    rows: list[list[Value]] = []
    numbers: list[Sequence[Any]] = []
    for record in records:
        result = record.result or {}
        for best in result.get("summary", ()):
            seeds = [row for row in result["rows"] if is_squad(row) and is_of(row, best)]
            if seeds:
                rows.append(table_row(record.model_name, best, seeds))
                numbers += [csv_row(record.model_name, row) for row in seeds]
    if not rows:
        return [], []
    head = ("model", "task", "exact match", "F1", "F1, answerable", "F1, unanswerable", "seeds")
    note = (
        "SQuAD's official scores on the dev questions, times 100: median and range over seeds, at "
        "the learning rate with the best median F1."
    )
    return [table(head, rows), paragraph(note)], [CsvTable("squad", FIELDS, tuple(numbers))]


def is_of(row: Row, best: Row) -> bool:
    """Whether a row belongs to a task at its best learning rate."""
    return bool(row["task"] == best["task"] and row["learning_rate"] == best["learning_rate"])


def table_row(model: str, best: Row, seeds: Sequence[Row]) -> list[Value]:
    """Returns one row of the table."""
    return [model, best["task"], *(spread(seeds, name) for name in METRICS), len(seeds)]


def spread(seeds: Sequence[Row], metric: str) -> Value:
    """Returns median and range of a metric; ``None`` if the task does not have it."""
    values = [100 * row["metrics"][metric] for row in seeds if metric in row["metrics"]]
    if not values:
        return None
    median = statistics.median(values)
    return Mark(f"{median:.1f} <small>{min(values):.1f}–{max(values):.1f}</small>")


def csv_row(model: str, row: Row) -> Sequence[Any]:
    """Returns the scores of one seed, 0..1; an empty cell where the task has no such score."""
    metrics = (row["metrics"].get(name, "") for name in METRICS)
    place = (row["task"], row["learning_rate"], row["seed"])
    return (model, *place, *metrics, row.get("null_threshold", ""))
