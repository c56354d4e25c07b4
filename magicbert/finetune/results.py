"""Finished cells on disk, the grid's rows and summary, and the table that is printed.

Every finished cell is a folder ``cells/<task>-lr<rate>-seed<seed>-<digest>/`` with its record and
its predictions; the digest is that of everything its result depends on. So a stopped grid goes on
where it stopped, and a cell made with another model or other settings is never mistaken for one
of this grid.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from magicbert.finetune.cell import Cell, Outcome
from magicbert.records import digest_of, read_record, write_record, write_text_atomically

CELL_SCHEMA = "magicbert/finetune-cell/1"
Row = dict[str, Any]


class CellStore:
    """The finished cells of one stage folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, cell: Cell, settings: Mapping[str, Any]) -> Path:
        """Returns the folder of a cell."""
        return self.folder / f"{cell}-{digest_of(settings)[:12]}"

    def find(self, cell: Cell, settings: Mapping[str, Any]) -> Row | None:
        """Returns the row of a finished cell, or ``None``.

        Raises:
            UserError: its record is damaged.
        """
        record = self.path(cell, settings) / "cell.json"
        if not record.is_file():
            return None
        row: Row = read_record(record, CELL_SCHEMA)["row"]
        return row

    def save(
        self, cell: Cell, settings: Mapping[str, Any], row: Row, files: Mapping[str, str]
    ) -> None:
        """Writes predictions first and the record last: a cell with a record is whole."""
        folder = self.path(cell, settings)
        for name, text in files.items():
            write_text_atomically(folder / name, text)
        write_record(folder / "cell.json", CELL_SCHEMA, {"row": row, "settings": dict(settings)})


def row_of(cell: Cell, metric: str, outcome: Outcome, train_rows: int) -> Row:
    """Returns the row of a cell in ``results.json``; ``metric`` is the task's main one."""
    result = outcome.evaluation
    row: Row = {
        "task": cell.task,
        "learning_rate": cell.learning_rate,
        "seed": cell.seed,
        "metric": metric,
        "score": result.metrics[metric],
        "metrics": dict(result.metrics),
        "train_rows": train_rows,
        "seconds": round(outcome.seconds, 1),
        **result.details,
    }
    if result.diverged:
        row["diverged"] = True
    return row


def summarize(rows: Iterable[Row]) -> list[Row]:
    """Returns, per task, the learning rate with the best median over seeds, with its spread.

    Of learning rates with one median the smallest is taken.
    """
    grouped: dict[str, dict[float, list[float]]] = {}
    metrics = {}
    for row in rows:
        scores = grouped.setdefault(row["task"], {}).setdefault(row["learning_rate"], [])
        scores.append(row["score"])
        metrics[row["task"]] = row["metric"]
    return [summarize_task(task, metrics[task], rates) for task, rates in grouped.items()]


def summarize_task(task: str, metric: str, rates: Mapping[float, Sequence[float]]) -> Row:
    """Returns the summary of one task."""
    best = min(rates, key=lambda rate: (-statistics.median(rates[rate]), rate))
    scores = rates[best]
    return {
        "task": task,
        "metric": metric,
        "learning_rate": best,
        "median": statistics.median(scores),
        "minimum": min(scores),
        "maximum": max(scores),
        "num_seeds": len(scores),
    }


def best_row(rows: Sequence[Row], summary: Row) -> Row:
    """Returns the best seed at a task's best learning rate; of equal ones the first."""
    candidates = [
        row
        for row in rows
        if row["task"] == summary["task"] and row["learning_rate"] == summary["learning_rate"]
    ]
    return max(candidates, key=lambda row: float(row["score"]))


def summary_table(title: str, summary: Sequence[Row]) -> Table:
    """Returns the table that the user sees at the end; scores are times 100."""
    table = Table(title=title)
    table.add_column("task")
    table.add_column("metric")
    for name in ("median", "lowest", "highest", "seeds", "learning rate"):
        table.add_column(name, justify="right")
    for row in summary:
        scores = (f"{100 * row[name]:.1f}" for name in ("median", "minimum", "maximum"))
        table.add_row(
            row["task"], row["metric"], *scores, str(row["num_seeds"]), f"{row['learning_rate']:g}"
        )
    return table
