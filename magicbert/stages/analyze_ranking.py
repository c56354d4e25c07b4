"""``magicbert analyze ranking``: how well supernets rank architectures that were trained alone."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from magicbert.config.reading import to_tree
from magicbert.config.roots import AnalyzeConfig
from magicbert.config.sections import MaskingSection, ModelSection, OptimizerSection, RankingSection
from magicbert.data.verification import verify_prepared
from magicbert.data.workers import worker_count
from magicbert.errors import ConfigError, UserError
from magicbert.records import digest_of, write_text_atomically
from magicbert.run_lock import alone_in
from magicbert.space import Architecture, SearchSpace
from magicbert.stages.ranking_downstream import read_dev_task
from magicbert.stages.ranking_result import publish
from magicbert.stages.ranking_tenant import BertTenant, open_trials
from magicbert.stages.tables import show_table
from magicbert.study.architectures import table_architectures
from magicbert.study.estimates import UnitCosts, measured_speed, plan_lines
from magicbert.study.methods import alignment_of, sampling_of
from magicbert.study.pieces import forget_piece
from magicbert.study.progress import StudyProgress
from magicbert.study.rows import Row, RowFile
from magicbert.study.trials import PIECES
from magicbert.study.units import DownstreamUnit, Unit, jobs_of, units_of
from magicbert.study.workers import Crew, UnitError, deadline
from magicbert.supernet.sampling import build_sampler
from magicbert.trail import Trail, current_commit, run_folder, stage_folder

LOGGER = logging.getLogger("magicbert")
STAGE, ROWS, FAILURE = "analyze-ranking", "rows.jsonl", "failure.txt"


def run(config: AnalyzeConfig) -> None:
    """Does the units that have no row yet, until done or out of time.

    Raises:
        UserError: data, space and settings do not fit together, or the folder holds another study.
    """
    study = Study(config)
    with alone_in(study.folder):
        study.check()
        with Trail(study.folder, config):
            study.show_plan()
            study.work()
            publish(study.folder, study.rows)


def plan(config: AnalyzeConfig) -> None:
    """Prints what the study will take, and starts nothing."""
    study = Study(config)
    study.check()
    study.show_plan()


@dataclass(frozen=True)
class Study:
    """One study: its units and its rows.

    Attributes:
        config: of the verb.
    """

    config: AnalyzeConfig

    @property
    def setting(self) -> RankingSection:
        """What is studied."""
        return self.config.ranking

    @cached_property
    def folder(self) -> Path:
        """The stage's folder."""
        return stage_folder(self.config.run, STAGE)

    @cached_property
    def prepared(self) -> Path:
        """The run's prepared data."""
        return run_folder(self.config.run) / "prepare"

    @cached_property
    def tenant(self) -> BertTenant:
        """Answers for sizes and costs; it trains nothing here."""
        return BertTenant(self.setting, self.prepared, torch.device("cpu"))

    @cached_property
    def table(self) -> tuple[Architecture, ...]:
        """Architectures that are trained alone."""
        return table_architectures(self.setting, self.tenant.space)

    @cached_property
    def units(self) -> list[Unit]:
        """All units, in the order in which they are begun."""
        return units_of(self.setting, self.tenant.space, self.table)

    @cached_property
    def file(self) -> RowFile:
        """The rows on the disk."""
        return RowFile(self.folder / ROWS, self.identity, OPTION_DEFAULTS)

    @property
    def identity(self) -> dict[str, Any]:
        """What every row depends on; steps, seeds and methods are in the keys of the rows."""
        setting = self.setting
        return {
            "data": self.tenant.manifest.digest,
            "space": digest_of(self.tenant.space.to_json()),
            "table": digest_of([str(path) for path in self.table]),
            "model": to_tree(setting.model),
            "masking": to_tree(setting.masking),
            "optimizer": to_tree(setting.optimizer),
            "rows_per_step": setting.rows_per_step,
            "rows_per_micro_batch": setting.rows_per_micro_batch,
            "rows_per_dev_batch": setting.rows_per_dev_batch,
            "num_dev_batches": setting.num_dev_batches,
        }

    @property
    def rows(self) -> list[Row]:
        """The rows of this study's units that are there."""
        return self.file.of([unit.key for unit in self.units])

    @property
    def missing(self) -> list[Unit]:
        """Units without a row."""
        return [unit for unit in self.units if unit.key not in self.file]

    def check(self) -> None:
        """Finds whatever keeps the study from running, before anything is trained or written.

        Raises:
            UserError: naming it.
        """
        manifest, setting = self.tenant.manifest, self.setting
        if manifest.length > setting.model.max_length:
            raise ConfigError("analyze ranking", [
                f"ranking.model.max_length: {setting.model.max_length} is below the "
                f"{manifest.length} tokens of a prepared row"
            ])  # fmt: skip
        for number, entry in enumerate(setting.supernets):
            try:
                check_entry(self.tenant.space, entry)
            except UserError as error:
                raise UserError(f"ranking.supernets[{number}]: {error}") from error
        if self.config.run.verify == "full":
            verify_prepared(self.prepared, manifest)
        self.tenant.source(0)
        tasks = {unit.task for unit in self.missing if isinstance(unit, DownstreamUnit)}
        for task in sorted(tasks):
            read_dev_task(task, setting.downstream)

    def show_plan(self) -> None:
        """Prints what is to be done: units, steps, FLOPs, and hours once a speed is known."""
        costs = UnitCosts(self.tenant, self.setting, self.tenant.space, self.table)
        done = {row["key"]: row for row in self.rows}
        lines = plan_lines(self.units, done, costs)
        speed = measured_speed(self.units, done, costs)
        head = ("work", "units", "done", "steps of each", "FLOPs", "worker hours left")
        rows = [
            (line.name, str(line.num_units), str(line.num_done), f"{line.num_steps or '-'}",
             f"{line.flops:.3g}" if line.flops else "-",
             f"{line.flops_left / speed / 3600:.2f}" if speed and line.flops else "-")
            for line in lines
        ]  # fmt: skip
        total = sum(line.flops for line in lines)
        left = sum(line.flops_left for line in lines)
        rows.append(
            ("all", str(len(self.units)), str(len(done)), "-", f"{total:.3g}",
             f"{left / speed / 3600:.2f}" if speed else "-")
        )  # fmt: skip
        at_once = self.setting.models_at_once
        beside = f", {at_once} models at once in each" if at_once > 1 else ""
        show_table(head, rows, f"Study of {len(self.table)} architectures, {self.num_workers} "
                               f"workers{beside}")  # fmt: skip

    @property
    def num_workers(self) -> int:
        """Processes that train side by side."""
        return worker_count(self.setting.num_workers)

    def work(self) -> None:
        """Does what is missing.

        Raises:
            UserError: a unit failed; its traceback is in a file.
        """
        arguments = (self.setting, self.prepared, self.folder, self.table)
        is_over = deadline(self.setting.max_minutes)
        crew = Crew(open_trials, arguments, self.num_workers, is_over)
        costs = UnitCosts(self.tenant, self.setting, self.tenant.space, self.table)
        commit = current_commit()
        with StudyProgress(self.units, self.missing, costs) as progress:

            def take(unit: Unit, row: Row) -> None:
                self.file.add(unit.key, {**row, "commit": commit})
                forget_piece(self.folder / PIECES, unit.key)
                progress.advance(unit)

            try:
                crew.do(jobs_of(self.missing, self.setting.models_at_once), take)
            except UnitError as error:
                file = self.folder / FAILURE
                write_text_atomically(file, f"{error.key}\n\n{error.trace}")
                raise UserError(
                    f"{error.key} failed: {error.summary}; where it happened stands in {file}. "
                    "Finished units are kept, and the same command goes on"
                ) from error
            finally:
                self.say_how_far()

    def say_how_far(self) -> None:
        """Says how many units are done, and how to go on."""
        num_missing = len(self.missing)
        LOGGER.info(
            "study: %d of %d units done: %s%s", len(self.units) - num_missing, len(self.units),
            self.folder / ROWS, "; the same command goes on" if num_missing else "",
        )  # fmt: skip


OPTION_DEFAULTS = {
    "model": to_tree(ModelSection()),
    "masking": to_tree(MaskingSection()),
    "optimizer": to_tree(OptimizerSection()),
}


def check_entry(space: SearchSpace, entry: Any) -> None:
    """Raises `UserError` if a supernet cannot be trained over the space."""
    build_sampler(sampling_of(entry), space, 0)
    alignment = alignment_of(entry)
    if alignment.enabled and alignment.num_blocks > space.num_layers:
        raise UserError(
            f"num_blocks: {alignment.num_blocks} is above the {space.num_layers} layers"
        )
