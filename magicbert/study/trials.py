"""How one unit becomes one row: trained in pieces, scored at the end."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from magicbert.config.sections import (
    AlignmentSection,
    OptimizerSection,
    RankingSection,
    SamplingSection,
    TrainingSection,
)
from magicbert.errors import UserError
from magicbert.space import Architecture, SearchSpace
from magicbert.study.architectures import chosen
from magicbert.study.interference import final_interference
from magicbert.study.methods import alignment_of, optimizer_of, sampling_of
from magicbert.study.pieces import Pieces, Stop, piece_folder
from magicbert.study.rows import Row
from magicbert.study.stacked_pieces import StackedPieces, StackRows
from magicbert.study.tenant import Tenant
from magicbert.study.units import AloneUnit, DownstreamUnit, Job, Stack, SupernetUnit
from magicbert.supernet.anchor import build_anchor_policy
from magicbert.supernet.sampling import build_sampler
from magicbert.supernet.scoring import Score
from magicbert.training.evaluation import PATHS_AT_ONCE
from magicbert.training.parts import Parts, Sections
from magicbert.training.small_training import SmallTraining

# The curve of a supernet is the mean of so many paths of the table.
NUM_CURVE_PATHS = 4
PIECES, MODELS = "pieces", "models"


@dataclass(frozen=True)
class Trials:
    """Does units in the process it was made in: one at a time, or a stack of them.

    Attributes:
        tenant: models and batches.
        setting: of the study.
        space: of the supernets.
        table: architectures that are scored.
        folder: of the stage; states and models lie in it.
    """

    tenant: Tenant
    setting: RankingSection
    space: SearchSpace
    table: tuple[Architecture, ...]
    folder: Path

    def __call__(self, job: Job, stop: Stop) -> Row | StackRows | None:
        """Does a job; ``None`` if it was told to stop, after which it can be gone on with."""
        match job:
            case Stack():
                return self.train_stack(job, stop)
            case AloneUnit():
                return self.train_alone(job, job.key, stop)
            case SupernetUnit():
                return self.train_supernet(job, stop)
            case DownstreamUnit():
                return self.finetune(job, stop)

    def train_alone(self, unit: AloneUnit, key: str, stop: Stop) -> Row | None:
        """Trains one architecture from new weights and scores it."""
        pieces = self.alone_pieces(unit, key)
        return self.alone_row(unit, pieces) if pieces.run(stop) else None

    def train_supernet(self, unit: SupernetUnit, stop: Stop) -> Row | None:
        """Trains one supernet and scores the whole table with its weights."""
        pieces = self.supernet_pieces(unit)
        return self.supernet_row(unit, pieces, stop) if pieces.run(stop) else None

    def train_stack(self, stack: Stack, stop: Stop) -> StackRows:
        """Trains the units of a stack together and scores each.

        Members that an earlier start left at other steps, because it made other stacks, make
        a stack for each of these steps, the furthest first.
        """
        standing: dict[int, list[tuple[AloneUnit | SupernetUnit, Pieces]]] = {}
        for unit in stack.units:
            pieces = self.begun(unit)
            standing.setdefault(pieces.position, []).append((unit, pieces))
        rows: list[tuple[AloneUnit | SupernetUnit, Row]] = []
        problems: list[UserError] = []
        for _, members in sorted(standing.items(), reverse=True):
            models = self.tenant.stack([pieces.training.supernet for _, pieces in members])
            together = StackedPieces([pieces for _, pieces in members], models)
            if not together.run(stop):
                return StackRows(tuple(rows), False, *problems[:1])
            together.training.hand_back()
            problems += together.problems.values()
            for number, (unit, pieces) in enumerate(members):
                if number in together.problems:
                    continue
                row = self.row_of(unit, pieces, stop)
                if row is None:
                    together.save()
                    return StackRows(tuple(rows), False, *problems[:1])
                rows.append((unit, {**row, "stacked": len(members)}))
        return StackRows(tuple(rows), True, *problems[:1])

    def begun(self, unit: AloneUnit | SupernetUnit) -> Pieces:
        """Returns the training of a unit, where its last piece left it."""
        if isinstance(unit, SupernetUnit):
            return self.supernet_pieces(unit)
        return self.alone_pieces(unit, unit.key)

    def row_of(self, unit: AloneUnit | SupernetUnit, pieces: Pieces, stop: Stop) -> Row | None:
        """Scores what was trained; ``None`` if told to stop meanwhile."""
        if isinstance(unit, SupernetUnit):
            return self.supernet_row(unit, pieces, stop)
        return self.alone_row(unit, pieces)

    def alone_pieces(self, unit: AloneUnit, key: str) -> Pieces:
        """Returns the training of one architecture, where its last piece left it."""
        path = unit.architecture
        training = self.training(
            SearchSpace.of(path), unit.seed, unit.num_steps, SamplingSection(), AlignmentSection(),
            self.setting.optimizer,
        )  # fmt: skip
        return self.pieces(key, training, unit.num_steps, [path])

    def alone_row(self, unit: AloneUnit, pieces: Pieces) -> Row:
        """Scores an architecture that was trained, and keeps its model if that is needed."""
        path, training = unit.architecture, pieces.training
        if unit.is_kept:
            self.tenant.keep(training.supernet, unit, self.model_folder(unit))
        score, cost = training.score(path, self.dev_batches), self.tenant.cost(path)
        return {
            "kind": "alone",
            "architecture": str(path),
            "seed": unit.seed,
            "budget": unit.budget,
            "steps": unit.num_steps,
            "loss": score.loss,
            "accuracy": score.accuracy,
            "parameters": cost.parameters,
            "flops": round(cost.flops),
            "training_flops": training.standing.flops,
            "curve": [list(point) for point in pieces.progress.curve],
            "seconds": round(pieces.progress.seconds, 3),
        }

    def supernet_pieces(self, unit: SupernetUnit) -> Pieces:
        """Returns the training of one supernet, where its last piece left it."""
        entry = unit.entry
        training = self.training(
            self.space, unit.seed, unit.num_steps, sampling_of(entry), alignment_of(entry),
            optimizer_of(entry, self.setting.optimizer),
        )  # fmt: skip
        some = chosen(self.table, NUM_CURVE_PATHS, self.setting.table_seed)
        return self.pieces(unit.key, training, unit.num_steps, some)

    def supernet_row(self, unit: SupernetUnit, pieces: Pieces, stop: Stop) -> Row | None:
        """Scores the whole table with the weights of a supernet; ``None`` if told to stop."""
        entry, training = unit.entry, pieces.training
        began = time.monotonic()
        found: dict[Architecture, Score] = {}
        ordered = sorted(self.table)
        for start in range(0, len(ordered), PATHS_AT_ONCE):
            if stop():
                pieces.save()
                return None
            found |= training.scores(ordered[start : start + PATHS_AT_ONCE], self.dev_batches)
        losses = {str(path): found[path].loss for path in self.table}
        probe = self.tenant.probe
        return {
            "kind": "supernet",
            "method": entry.method,
            "settings": entry.settings,
            "seed": unit.seed,
            "steps": unit.num_steps,
            "flops": training.standing.flops,
            "loss": sum(losses.values()) / len(losses),
            "scores": losses,
            "curve": [list(point) for point in pieces.progress.curve],
            "anchors": training.standing.replaced,
            "interference": final_interference(training.supernet, probe, self.dev_batches),
            "seconds": round(pieces.progress.seconds + time.monotonic() - began, 3),
        }

    def finetune(self, unit: DownstreamUnit, stop: Stop) -> Row | None:
        """Fine-tunes a kept model, which is trained again if it is not there."""
        start, folder = unit.start, self.model_folder(unit.start)
        if not folder.is_dir() and self.train_alone(start, unit.key, stop) is None:
            return None
        began = time.monotonic()
        metric, value = self.tenant.finetune(folder, unit.task, start.seed)
        return {
            "kind": "downstream",
            "architecture": str(start.architecture),
            "seed": start.seed,
            "task": unit.task,
            "metric": metric,
            "score": value,
            "seconds": round(time.monotonic() - began, 3),
        }

    def training(
        self,
        space: SearchSpace,
        seed: int,
        num_steps: int,
        sampling: SamplingSection,
        alignment: AlignmentSection,
        optimizer: OptimizerSection,
    ) -> SmallTraining:
        """Returns a training at its first step."""
        setting = self.setting
        sections = Sections(
            TrainingSection(
                seed=seed,
                num_steps=num_steps,
                rows_per_step=setting.rows_per_step,
                rows_per_micro_batch=setting.rows_per_micro_batch,
                precision="fp32",
                backend=setting.backend,
            ),
            optimizer,
            alignment,
        )
        anchors = build_anchor_policy(alignment, space, seed) if alignment.enabled else None
        sampler = build_sampler(sampling, space, seed)
        parts = Parts(self.tenant.objective, self.tenant.source(seed), sampler, anchors)
        supernet = self.tenant.build(space, seed)
        return SmallTraining(supernet, parts, sections, self.tenant.forward_flops)

    def pieces(
        self, key: str, training: SmallTraining, num_steps: int, paths: Sequence[Architecture]
    ) -> Pieces:
        """Returns a training where its last piece left it; its curve is of some paths' mean loss.

        Raises:
            UserError: the state that was kept is damaged.
        """

        def measure() -> float:
            scores = training.scores(paths, self.dev_batches)
            return sum((scores[path] for path in paths), start=Score(0.0, 0, 0)).loss

        folder = piece_folder(self.folder / PIECES, key)
        number = self.setting.num_curve_points
        pieces = Pieces(folder, key, training, num_steps, measure, number)
        pieces.resume()
        return pieces

    @cached_property
    def dev_batches(self) -> list[Any]:
        """The fixed batches of every loss; they do not depend on a seed."""
        return self.tenant.dev_batches()

    def model_folder(self, unit: AloneUnit) -> Path:
        """Returns where the model of a unit is kept for fine-tuning."""
        return piece_folder(self.folder / MODELS, unit.key)
