"""The grid: every task with every learning rate and every seed, resumable between cells."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from magicbert.config.sections import FinetuneSection
from magicbert.faults import fault
from magicbert.finetune.cell import Cell, finetune_cell
from magicbert.finetune.encoding import EncodedTask, encode_task, usable_length
from magicbert.finetune.examples import TaskData
from magicbert.finetune.pretrained import Pretrained
from magicbert.finetune.progress import step_progress
from magicbert.finetune.results import CellStore, Row, best_row, row_of, summarize
from magicbert.finetune.tasks import Task
from magicbert.finetune.warm_start import KeptWeights
from magicbert.records import digest_of, write_record, write_text_atomically
from magicbert.trail import Trail

LOGGER = logging.getLogger("magicbert")
RESULTS_SCHEMA = "magicbert/finetune/1"


class Grid:
    """Fine-tunes one model on several tasks.

    Args:
        folder: the stage's folder; results stand there.
        settings: grid and training settings.
        start: the model.
        tokenizer: the model's own.
        data: the tasks' rows, in the order in which they are trained.
    """

    def __init__(
        self,
        folder: Path,
        settings: FinetuneSection,
        start: Pretrained,
        tokenizer: Any,
        data: Sequence[TaskData],
    ) -> None:
        self.folder = folder
        self.settings = settings
        self.start = start
        self.data = data
        self.store = CellStore(self.folder / "cells")
        self.kept = KeptWeights(self.folder / "mnli-weights", start.identity)
        self.rows: list[Row] = []
        self.predictions: list[dict[str, Any]] = []
        self.num_cells = sum(len(self.cells(item.task)) for item in data)
        self.tokenizer = tokenizer
        self.max_length = usable_length(settings.max_length, self.tokenizer, start.max_positions)
        self.deadline = time.monotonic() + 60 * (settings.max_minutes or float("inf"))
        self.num_trained = 0

    @property
    def is_finished(self) -> bool:
        """Returns whether every cell has a row."""
        return len(self.rows) == self.num_cells

    def run(self, trail: Trail) -> list[Row]:
        """Trains what is missing until done or out of time; returns the summary."""
        if self.max_length < self.settings.max_length:
            LOGGER.info("%s reads at most %d tokens: longer rows are cut there",
                        self.start.name, self.max_length)  # fmt: skip
        for data in self.data:
            if not self.run_task(data, trail):
                break
        return summarize(self.rows)

    def run_task(self, data: TaskData, trail: Trail) -> bool:
        """Runs the cells of one task; returns whether there was time for all."""
        weights = self.warm_start(data.task)
        settings = self.cell_settings(data, weights)
        encoded: EncodedTask | None = None
        num_found = 0
        for cell in self.cells(data.task):
            row = self.store.find(cell, settings)
            if row is None:
                if self.is_late():
                    return False
                encoded = encoded or encode_task(data, self.tokenizer, self.max_length)
                row = self.train(cell, encoded, settings, bool(weights))
                trail.record("cell", **row)
            else:
                num_found += 1
            self.rows.append(row)
            self.write_results()
        if num_found:
            LOGGER.info("%s: %d cells were done before", data.task.name, num_found)
        self.publish_predictions(data, settings)
        self.write_results()
        return True

    def train(
        self, cell: Cell, data: EncodedTask, settings: dict[str, Any], from_mnli: bool
    ) -> Row:
        """Trains one cell and saves it."""
        outcome = finetune_cell(
            self.start, data, cell, self.settings,
            weights=str(self.kept.folder) if from_mnli else "",
            callbacks=[step_progress(str(cell))],
        )  # fmt: skip
        row = row_of(cell, data.task, outcome, len(data.train))
        if from_mnli:
            row["warm_start"] = self.kept.describe()
        if data.task.name == "mnli" and self.settings.mnli_warm_start and not outcome.diverged:
            self.kept.offer(outcome.model, row, digest_of(settings))
        fault("finetune.cell", number=len(self.rows))
        self.store.save(cell, settings, data.task, row, outcome)
        self.num_trained += 1
        fault("finetune.cell", number=len(self.rows))
        if outcome.diverged:
            LOGGER.warning("%s: diverged, counted as 0", cell)
        LOGGER.info(
            "%s: %s %.4f in %.0f s (%d of %d)", cell, row["metric"], row["score"], row["seconds"],
            len(self.rows) + 1, self.num_cells,
        )  # fmt: skip
        return row

    def cells(self, task: Task) -> list[Cell]:
        """Returns the cells of one task, each once."""
        rates, seeds = self.settings.learning_rates, self.settings.seeds
        return list(dict.fromkeys(Cell(task.name, rate, seed) for rate in rates for seed in seeds))

    def is_late(self) -> bool:
        """Returns whether time is up; the first cell is always trained, so every call gets on."""
        return self.num_trained > 0 and time.monotonic() >= self.deadline

    def warm_start(self, task: Task) -> str:
        """Returns the digest of the MNLI weights that a task starts from; empty = none."""
        if not (task.starts_from_mnli and self.settings.mnli_warm_start):
            return ""
        identity = self.kept.identity()
        if identity:
            LOGGER.info("%s starts from the weights fine-tuned on mnli", task.name)
        return identity

    def cell_settings(self, data: TaskData, weights: str) -> dict[str, Any]:
        """Returns everything that the result of a cell depends on, but its place in the grid."""
        return {
            "model": self.start.identity,
            "mnli_weights": weights,
            "rows": data.describe(),
            "max_length": self.max_length,
            "num_epochs": self.settings.num_epochs,
            "batch_size": self.settings.batch_size,
            "weight_decay": self.settings.weight_decay,
            "warmup_ratio": self.settings.warmup_ratio,
        }

    def publish_predictions(self, data: TaskData, settings: dict[str, Any]) -> None:
        """Copies the predictions of a task's best cell to ``predictions/``."""
        row = best_row(self.rows, summarize(self.rows)[-1])
        cell = Cell(row["task"], row["learning_rate"], row["seed"])
        for item in data.parts:
            source = self.store.path(cell, settings) / f"{item.part.submission}.tsv"
            target = self.folder / "predictions" / source.name
            write_text_atomically(target, source.read_text(encoding="utf-8"))
            self.predictions.append(
                {
                    "file": f"predictions/{target.name}",
                    "task": cell.task,
                    "split": item.part.dev if item.test is None else item.part.test,
                    "rows": len(item.dev if item.test is None else item.test),
                    "learning_rate": cell.learning_rate,
                    "seed": cell.seed,
                }
            )

    def write_results(self) -> None:
        """Writes ``results.json`` with what is done so far."""
        payload = {
            "model": self.start.name,
            "model_identity": self.start.identity,
            "architecture": self.start.architecture,
            "finished": self.is_finished,
            "num_cells": self.num_cells,
            "num_finished_cells": len(self.rows),
            "max_length": self.max_length,
            "rows": self.rows,
            "summary": summarize(self.rows),
            "data": {data.task.name: data.describe() for data in self.data},
            "predictions": self.predictions,
        }
        write_record(self.folder / "results.json", RESULTS_SCHEMA, payload)
