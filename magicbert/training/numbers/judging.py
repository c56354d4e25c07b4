"""What is done about bad numbers: logged, skipped, or the end, with a file that says where."""

from __future__ import annotations

import json
import math
from collections.abc import Callable

import torch
import torch.distributed as dist
from torch import Tensor

from magicbert.config.sections import TrainingSection
from magicbert.records import write_text_atomically
from magicbert.training.engine import TrainingEngine
from magicbert.training.module import StepPlan
from magicbert.training.numbers.anomalies import Anomalies, Anomaly, DivergedError
from magicbert.training.numbers.examination import examine
from magicbert.training.numbers.late_numbers import LateNumbers, Numbers
from magicbert.training.numbers.weight_checks import masters_not_finite
from magicbert.training.ranks import Ranks
from magicbert.training.reporting.tracking import Tracker
from magicbert.training.samples import StepData

ADVICE = (
    "Lower optimizer.learning_rate or lengthen optimizer.warmup_steps; "
    "earlier checkpoints are kept."
)


class StepJudge:
    """Follows the numbers of every step from the device to a verdict.

    Args:
        engine: the model.
        ranks: all ranks.
        training: limits and policy.
        seed_dropout: sets the random state of (step, micro-batch), to run a step again.
        tracker: for log and metrics; its folder takes the file.
    """

    def __init__(
        self,
        engine: TrainingEngine,
        ranks: Ranks,
        training: TrainingSection,
        seed_dropout: Callable[[int, int], None],
        tracker: Tracker,
    ) -> None:
        self.engine, self.ranks, self.training = engine, ranks, training
        self.seed_dropout, self.tracker = seed_dropout, tracker
        self.anomalies = Anomalies(training)
        self.late = LateNumbers(engine.device)
        self.current: Numbers | None = None

    def put(self, plan: StepPlan, data: StepData, loss: Tensor, norm: Tensor) -> None:
        """Takes the numbers of a step as they are computed."""
        self.late.put(plan, data, loss, norm)

    def take(self) -> tuple[float, bool]:
        """Returns what this rank has to say about the step that is due: loss share, skipped."""
        self.current = self.late.take()
        return (self.current.loss, self.current.is_skipped) if self.current else (0.0, False)

    def judge(self, loss: float, is_skipped: bool) -> None:
        """Judges the step that was due, from what all ranks said.

        Raises:
            DivergedError: the budget is used up, or the policy is to stop.
        """
        if self.current is None:
            return
        step = self.current.plan.step
        anomaly = self.anomalies.judge(step, loss, is_skipped)
        if anomaly is None:
            return
        values = {
            "anomaly": anomaly.kind,
            "loss": loss if math.isfinite(loss) else None,
            "path": str(self.current.plan.architecture),
        }
        self.tracker.record("anomaly", step, values)
        self.tracker.say(anomaly.text)
        if anomaly.is_last_straw:
            raise DivergedError(self.autopsy(anomaly, self.current))

    def shield(self, loss: Tensor, own_loss: Tensor) -> Tensor:
        """Makes the last micro-batch of a step spoil the gradient if the step's loss is a spike.

        The optimizers skip a step whose gradient is not finite, on the device and on all ranks.

        Args:
            loss: what backward starts from.
            own_loss: this rank's share of the step's loss.
        """
        threshold = self.anomalies.threshold
        if self.training.on_spike != "skip" or math.isinf(threshold):
            return loss
        total = own_loss.detach().float().clone()
        dist.all_reduce(total)
        return loss * torch.where(total > threshold, math.nan, 1.0)

    def check_masters(self, step: int) -> None:
        """Keeps weights that are not finite from being saved.

        Raises:
            DivergedError: some rank holds such weights.
        """
        bad = masters_not_finite(self.engine.optimizer)
        if not self.ranks.sum([len(bad)], "weights before a save")[0]:
            return
        views = self.ranks.gather(bad)
        lines = [
            f"  rank {rank}: {', '.join(names[:4])}" for rank, names in enumerate(views) if names
        ]
        text = "\n".join([f"step {step}: not saved, fp32 weights are not finite in", *lines])
        raise DivergedError(f"{text}\n{ADVICE}")

    def autopsy(self, anomaly: Anomaly, numbers: Numbers) -> str:
        """Runs the step again on all ranks, writes what was found, and sums it up."""
        module = self.engine.module
        module.train()
        paths = (numbers.plan.architecture, numbers.plan.anchor)
        with self.engine.gathered(*(path for path in paths if path is not None)):
            own_view = examine(module, numbers, self.seed_dropout)
        views = self.ranks.gather(own_view)
        record = {
            "step": anomaly.step,
            "anomaly": anomaly.kind,
            "path": str(numbers.plan.architecture),
            "anchor": None if numbers.plan.anchor is None else str(numbers.plan.anchor),
            "ranks": views,
        }
        file = self.tracker.trail.folder / f"anomaly-step-{anomaly.step}.json"
        if self.ranks.is_first:
            write_text_atomically(file, json.dumps(record, indent=1) + "\n")
        found = next(((r, view) for r, view in enumerate(views) if view["first"]), None)
        where = (
            f"rank {found[0]}: {found[1]['first']}"
            if found
            else "run again, every number was finite: suspect the hardware"
        )
        if anomaly.kind == "spike":
            return f"training stopped. {anomaly.text}. Samples and path: {file}"
        return f"training has diverged. {anomaly.text}. First: {where}. More: {file}\n{ADVICE}"
