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
from magicbert.finetune.evaluation import Encoded
from magicbert.finetune.job import Job
from magicbert.finetune.kept_model import KeptModel
from magicbert.finetune.pretrained import Pretrained
from magicbert.finetune.progress import step_progress
from magicbert.finetune.results import CellStore, Row, best_row, row_of, summarize
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
        jobs: the tasks with their rows, in the order in which they are trained.
    """

    def __init__(
        self,
        folder: Path,
        settings: FinetuneSection,
        start: Pretrained,
        tokenizer: Any,
        jobs: Sequence[Job],
    ) -> None:
        self.folder = folder
        self.settings = settings
        self.start = start
        self.tokenizer = tokenizer
        self.jobs = jobs
        self.store = CellStore(self.folder / "cells")
        self.rows: list[Row] = []
        self.predictions: list[dict[str, Any]] = []
        self.num_cells = sum(len(self.cells(job)) for job in jobs)
        self.deadline = time.monotonic() + 60 * (settings.max_minutes or float("inf"))
        self.num_trained = 0

    @property
    def is_finished(self) -> bool:
        """Returns whether every cell has a row."""
        return len(self.rows) == self.num_cells

    def run(self, trail: Trail) -> list[Row]:
        """Trains what is missing until done or out of time; returns the summary."""
        for job in self.jobs:
            if not self.run_job(job, trail):
                break
        return summarize(self.rows)

    def run_job(self, job: Job, trail: Trail) -> bool:
        """Runs the cells of one task; returns whether there was time for all."""
        weights = self.warm_start(job)
        settings = self.cell_settings(job, weights)
        encoded: Encoded | None = None
        num_found = 0
        for cell in self.cells(job):
            row = self.store.find(cell, settings)
            if row is None:
                if self.is_late():
                    return False
                encoded = encoded or job.encode()
                row = self.train(cell, job, encoded, settings, bool(weights))
                trail.record("cell", **row)
            else:
                num_found += 1
            self.rows.append(row)
            self.write_results()
        if num_found:
            LOGGER.info("%s: %d cells were done before", job.name, num_found)
        self.publish_predictions(job, settings)
        self.write_results()
        return True

    def train(
        self,
        cell: Cell,
        job: Job,
        data: Encoded,
        settings: dict[str, Any],
        is_warm: bool,
    ) -> Row:
        """Trains one cell and saves it."""
        kept = self.kept_weights(job.starts_from)
        outcome = finetune_cell(
            self.start, data, cell, self.settings,
            weights=str(kept.folder) if is_warm else "", callbacks=[step_progress(str(cell))],
        )  # fmt: skip
        row = row_of(cell, job.main_metric, outcome, job.num_train)
        if is_warm:
            row["warm_start"] = kept.describe()
        if not outcome.evaluation.diverged:
            self.keep(job, outcome.model, row, settings)
        fault("finetune.cell", number=len(self.rows))
        self.store.save(cell, settings, row, outcome.evaluation.files)
        self.num_trained += 1
        fault("finetune.cell", number=len(self.rows))
        if outcome.evaluation.diverged:
            LOGGER.warning("%s: diverged, counted as 0", cell)
        LOGGER.info(
            "%s: %s %.4f in %.0f s (%d of %d)", cell, row["metric"], row["score"], row["seconds"],
            len(self.rows) + 1, self.num_cells,
        )  # fmt: skip
        return row

    def keep(self, job: Job, model: Any, row: Row, settings: dict[str, Any]) -> None:
        """Keeps a model that is the best so far, for other tasks and for the user."""
        if job.is_start:
            self.kept_weights(job.name).offer(model, row, digest_of(settings))
        if self.settings.keep_model:
            kept = KeptModel(self.folder / "models" / job.name, self.start, self.tokenizer)
            kept.offer(model, row, settings)

    def kept_weights(self, task: str) -> KeptWeights:
        """Returns where the best weights fine-tuned on a task lie."""
        return KeptWeights(self.folder / f"{task}-weights", self.start.identity)

    def cells(self, job: Job) -> list[Cell]:
        """Returns the cells of one task, each once."""
        rates, seeds = self.settings.learning_rates, self.settings.seeds
        return list(dict.fromkeys(Cell(job.name, rate, seed) for rate in rates for seed in seeds))

    def is_late(self) -> bool:
        """Returns whether time is up; the first cell is always trained, so every call gets on."""
        return self.num_trained > 0 and time.monotonic() >= self.deadline

    def warm_start(self, job: Job) -> str:
        """Returns the digest of the weights that a task starts from; empty = the model's own."""
        if not job.starts_from:
            return ""
        identity = self.kept_weights(job.starts_from).identity()
        if identity:
            LOGGER.info("%s starts from the weights fine-tuned on %s", job.name, job.starts_from)
        return identity

    def cell_settings(self, job: Job, weights: str) -> dict[str, Any]:
        """Returns everything that the result of a cell depends on, but its place in the grid."""
        teaching = {"distillation": job.teaching.settings()} if job.teaching else {}
        return {
            "model": self.start.identity,
            "start_weights": weights,
            "rows": job.describe(),
            **job.settings(),
            **teaching,
            "num_epochs": self.settings.num_epochs,
            "batch_size": self.settings.batch_size,
            "weight_decay": self.settings.weight_decay,
            "warmup_ratio": self.settings.warmup_ratio,
        }

    def publish_predictions(self, job: Job, settings: dict[str, Any]) -> None:
        """Copies the predictions of a task's best cell to ``predictions/``."""
        row = best_row(self.rows, summarize(self.rows)[-1])
        cell = Cell(row["task"], row["learning_rate"], row["seed"])
        for item in job.predicted():
            source = self.store.path(cell, settings) / item.file
            target = self.folder / "predictions" / item.file
            write_text_atomically(target, source.read_text(encoding="utf-8"))
            self.predictions.append(
                {
                    "file": f"predictions/{item.file}",
                    "task": cell.task,
                    "split": item.split,
                    "rows": item.rows,
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
            "max_length": max(job.max_length for job in self.jobs),
            "rows": self.rows,
            "summary": summarize(self.rows),
            "data": {job.name: job.describe() for job in self.jobs},
            "predictions": self.predictions,
        }
        if taught := {job.name: job.teaching.describe() for job in self.jobs if job.teaching}:
            payload["distillation"] = taught
        write_record(self.folder / "results.json", RESULTS_SCHEMA, payload)
