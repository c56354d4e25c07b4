"""One block's training: steps against the teacher, rounds of shrinking, and its table at the end.

A block knows nothing of the others, so each has a folder of its own::

    block-1/state.pt          weights, moments and anchors after some step
    block-1/round-0007.json   the paths that the round's shrinking left
    block-1/table.json        the best paths of each bin, with cost and dev loss

A round's paths are a function of the weights that it ends with, and these are saved first: whatever
is interrupted is done again, with the same result.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from magicbert.bert.block_supernet import BlockSupernet
from magicbert.bert.taught_batches import TaughtSource
from magicbert.compression.block_table import BlockRow, BlockTable
from magicbert.compression.pool_sampling import PoolSampler
from magicbert.compression.shrinking import Candidates, Shrinkage
from magicbert.config.sections import BlockTrainingSection
from magicbert.records import read_record, write_record
from magicbert.space import Architecture, CostModel
from magicbert.training.parts import Parts, Sections
from magicbert.training.small_training import SmallTraining, check_finite
from magicbert.training.watching.heartbeat import PULSE

ROUND_SCHEMA = "magicbert/block-round/1"
STATE = "state.pt"
Report = Callable[[str, Mapping[str, Any]], None]


class BlockStep(SmallTraining):
    """The step of a block: that of any small training, in the number format asked for.

    Args:
        supernet: the block.
        parts: regression to the teacher, its batches, sampler and anchors.
        sections: configuration.
        forward_flops: of one row along a path.
        precision: of forward and backward; weights and moments are fp32.
    """

    def __init__(
        self,
        supernet: BlockSupernet,
        parts: Parts,
        sections: Sections,
        forward_flops: Callable[[Architecture], float],
        precision: str,
    ) -> None:
        super().__init__(supernet, parts, sections, forward_flops)
        self.precision = precision

    def mixed(self) -> torch.autocast:
        """Returns the block inside which operators run in the number format."""
        return torch.autocast(self.device.type, torch.bfloat16, self.precision == "bf16")

    def advance(self) -> Tensor:
        """Makes one step; returns the loss, detached and still on the device."""
        with self.mixed():
            return super().advance()

    def accuracies(self, paths: Collection[Architecture]) -> dict[Architecture, float]:
        """Scores paths for the anchor policy: a regression is better the lower its loss."""
        super().accuracies(paths)
        return {path: -score.loss for path, score in self.scores(paths, self.few).items()}


@dataclass
class BlockTraining:
    """Trains one block from where it stands to its table.

    Attributes:
        number: of the block, from 1.
        folder: of the block.
        step: what makes its steps.
        sampler: draws the paths of what is left.
        candidates: what is left.
        costs: of the operators, full names.
        full_names: the operators that a path stands for in an encoder.
        settings: steps, rounds and bins.
        origin: digests that decide the result.
        report: gets the kind and the values of what happens.
    """

    number: int
    folder: Path
    step: BlockStep
    sampler: PoolSampler
    candidates: Candidates
    costs: CostModel
    full_names: Callable[[Architecture], tuple[str, ...]]
    settings: BlockTrainingSection
    origin: Mapping[str, Any]
    report: Report

    def run(self, is_stopped: Callable[[], bool]) -> bool:
        """Trains until the bins are shrunk or all steps are made, and writes the table.

        Args:
            is_stopped: asked between steps; then a checkpoint is written instead.

        Returns:
            Whether the block is finished.
        """
        self.resume()
        began, losses = time.monotonic(), []
        while not self.is_over():
            if is_stopped():
                self.save()
                return False
            losses.append(self.step.advance())
            made = self.step.standing.step
            PULSE.enter("step", made)
            if made % self.settings.log_every == 0:
                self.log(losses, time.monotonic() - began)
                began, losses = time.monotonic(), []
            if made % self.settings.steps_per_round == 0:
                self.end_round(made // self.settings.steps_per_round)
            elif made % self.settings.checkpoint_every == 0:
                self.save()
        self.finish()
        return True

    def is_over(self) -> bool:
        """Whether all steps are made, or every bin is down to what it keeps."""
        made = self.step.standing.step
        return made >= self.settings.num_steps or self.candidates.is_shrunk(
            self.settings.keep_per_bin
        )

    def resume(self) -> None:
        """Takes up weights and paths of an earlier start."""
        self.folder.mkdir(parents=True, exist_ok=True)
        if not (self.folder / STATE).is_file():
            return
        self.step.restore(self.folder / STATE)
        made = self.step.standing.step
        number, rest = divmod(made, self.settings.steps_per_round)
        for earlier in range(number, 0, -1):
            if self.round_file(earlier).is_file():
                self.take(read_record(self.round_file(earlier), ROUND_SCHEMA))
                break
        if rest == 0 and not self.round_file(number).is_file():
            self.shrink(number)

    def take(self, record: Mapping[str, Any]) -> None:
        """Leaves the paths that a round left."""
        stays = np.isin(self.keys(), np.array(record["paths"], dtype=np.int64))
        self.narrow(Candidates(self.candidates.pool.kept(stays), self.candidates.bins[stays]))

    def narrow(self, candidates: Candidates) -> None:
        """Draws from fewer paths from now on."""
        self.candidates = candidates
        self.sampler.pool = candidates.pool

    def keys(self) -> Any:
        """Returns the numbers that name the paths left."""
        return self.candidates.pool.keys_of(self.candidates.pool.members)

    def end_round(self, number: int) -> None:
        """Saves, then shrinks with the weights that were saved."""
        self.save()
        self.shrink(number)

    def shrink(self, number: int) -> None:
        """Halves the bins, unless the round is one of those that only train."""
        if number > self.settings.warmup_rounds:
            self.narrow(self.shrinkage.halve(self.candidates, number, self.losses))
        sizes = self.candidates.sizes()
        write_record(
            self.round_file(number), ROUND_SCHEMA, {"round": number, "paths": self.keys().tolist()}
        )
        self.report("round", {"block": self.number, "round": number, "paths_per_bin": sizes})

    @property
    def shrinkage(self) -> Shrinkage:
        """The rule of the rounds."""
        settings = self.settings
        return Shrinkage(settings.samples_per_bin, settings.keep_per_bin, settings.seed)

    def losses(self, paths: Sequence[Architecture]) -> dict[Architecture, float]:
        """Returns the dev losses of paths with the weights as they are."""
        source = self.step.parts.source
        assert isinstance(source, TaughtSource)
        batches = source.dev_batches(self.settings.num_dev_batches)
        with self.step.mixed(), PULSE.during("evaluate"):
            scores = self.step.scores(paths, batches)
        return {path: score.loss for path, score in scores.items()}

    def finish(self) -> None:
        """Writes the weights, and the table that models are chosen from."""
        self.save()
        rows = [
            self.row(number, path, loss)
            for number, path, loss in self.shrinkage.finalists(self.candidates, self.losses)
        ]
        BlockTable(tuple(rows)).write(self.folder, self.origin, self.step.standing.step)

    def row(self, number: int, path: Architecture, loss: float) -> BlockRow:
        """Returns a path of the table with what its operators cost."""
        names = self.full_names(path)
        costs = [self.costs.of_operator(name) for name in names]
        check_finite(loss, self.step.standing.step, f"block {self.number}, path {path}")
        return BlockRow(
            path=path,
            operators=names,
            parameters=sum(cost.parameters for cost in costs),
            flops=sum(cost.flops for cost in costs),
            loss=loss,
            bin=number,
            latency_ns=sum(cost.latency_ns for cost in costs),
        )

    def log(self, losses: list[Tensor], seconds: float) -> None:
        """Reads the losses off the device and reports their mean."""
        made = self.step.standing.step
        mean = float(torch.stack(losses).mean())
        check_finite(mean, made, f"block {self.number}")
        values = {
            "block": self.number,
            "step": made,
            "loss": mean,
            "path": str(self.step.standing.path),
            "paths_left": self.candidates.pool.count(),
            "steps_per_second": round(len(losses) / max(seconds, 1e-9), 3),
        }
        self.report("train", values)

    def save(self) -> None:
        """Writes weights, moments, anchors and position."""
        with PULSE.during("save"):
            self.step.save(self.folder / STATE)

    def round_file(self, number: int) -> Path:
        """Returns the record of a round."""
        return self.folder / f"round-{number:04d}.json"
