"""Scores of a model as its fine-tunings have recorded them."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from magicbert.config.reading import from_tree, read_yaml
from magicbert.config.roots import FinetuneConfig
from magicbert.config.sections import ComparedModelSection
from magicbert.errors import UserError
from magicbert.finetune.grid import RESULTS_SCHEMA
from magicbert.records import read_record
from magicbert.trail import stage_folder

RESULTS = "results.json"
# What NAS-BERT and MAGIC average over: GLUE without WNLI.
GLUE = ("mnli", "qqp", "qnli", "cola", "sst2", "stsb", "rte", "mrpc")
Row = dict[str, Any]


@dataclass(frozen=True)
class Recorded:
    """What is known of a model before anything is measured.

    Attributes:
        source: folder or hub id.
        identity: that its fine-tunings saw; empty if there are none.
        scores: a row per task and metric.
        notes: what a reader must know of the scores.
    """

    source: str
    identity: str
    scores: tuple[Row, ...]
    notes: tuple[str, ...]


def read_recorded(model: ComparedModelSection) -> Recorded:
    """Reads the fine-tunings of one row.

    Raises:
        UserError: one is missing or damaged, two are of different models, or have one task.
    """
    records = {Path(name): read_record(Path(name) / RESULTS, RESULTS_SCHEMA)
               for name in model.finetune}  # fmt: skip
    identities = {record["model_identity"] for record in records.values()}
    if len(identities) > 1:
        raise UserError(f"compare: {model.name}: {', '.join(model.finetune)}: of different models")
    scores = [row for record in records.values() for row in scores_of(record)]
    tasks = [task for record in records.values() for task in tasks_of(record)]
    twice = sorted({task for task in tasks if tasks.count(task) > 1})
    if twice:
        raise UserError(f"compare: {model.name}: {', '.join(twice)}: in two of its fine-tunings")
    notes = tuple(
        f"{folder.name}: {record['num_finished_cells']} of {record['num_cells']} cells are done"
        for folder, record in records.items()
        if not record["finished"]
    )
    source = model.model or source_of(next(iter(records)))
    return Recorded(source, next(iter(identities), ""), tuple(scores), notes)


def source_of(folder: Path) -> str:
    """Returns the model that a fine-tuning started from, as its configuration says."""
    file = folder / "config.yaml"
    config = from_tree(FinetuneConfig, read_yaml(file), str(file))
    return config.finetune.model or str(stage_folder(config.run, "export"))


def tasks_of(record: Row) -> list[str]:
    """Returns the tasks of a record."""
    return [summary["task"] for summary in record["summary"]]


def scores_of(record: Row) -> list[Row]:
    """Returns every metric of every task, over the seeds at the task's best learning rate."""
    return [
        score_row(summary, name, [row["metrics"][name] for row in rows])
        for summary in record["summary"]
        for rows in [best_rows(record["rows"], summary)]
        for name in rows[0]["metrics"]
    ]


def best_rows(rows: Sequence[Row], summary: Row) -> list[Row]:
    """Returns the cells of a task at its best learning rate."""
    return [
        row
        for row in rows
        if row["task"] == summary["task"] and row["learning_rate"] == summary["learning_rate"]
    ]


def score_row(summary: Row, metric: str, values: Sequence[float]) -> Row:
    """Returns one metric of one task with its spread over seeds."""
    return {
        "task": summary["task"],
        "metric": metric,
        "is_main": metric == summary["metric"],
        "median": statistics.median(values),
        "minimum": min(values),
        "maximum": max(values),
        "num_seeds": len(values),
        "learning_rate": summary["learning_rate"],
    }


def glue_mean(scores: Sequence[Row]) -> float | None:
    """Returns the mean of the medians over the eight tasks; ``None`` if one of them is missing."""
    medians = {row["task"]: row["median"] for row in scores if row["is_main"]}
    if not set(GLUE) <= set(medians):
        return None
    return statistics.fmean(medians[task] for task in GLUE)
