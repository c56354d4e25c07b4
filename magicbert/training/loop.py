"""The training loop: one path a step, from the first step or a checkpoint to the last."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager

from torch import Tensor

from magicbert.data.loader import Prefetcher
from magicbert.faults import fault
from magicbert.space import Architecture
from magicbert.supernet.scoring import Score
from magicbert.trail import read_metrics
from magicbert.training.control import Deadline, Notice, StepAgreement, agree
from magicbert.training.dropout_seed import seed_dropout
from magicbert.training.engine import TrainingEngine
from magicbert.training.evaluation import (
    PATHS_AT_ONCE,
    EvaluationStopped,
    Evaluator,
    evaluation_paths,
)
from magicbert.training.module import StepPlan
from magicbert.training.numbers.judging import StepJudge
from magicbert.training.numbers.weight_checks import check_replicas
from magicbert.training.parts import Outcome, Parts, Sections
from magicbert.training.position import TrainState
from magicbert.training.ranks import AgreedError, DisagreementError, Ranks
from magicbert.training.reporting.meter import Meter
from magicbert.training.reporting.tracking import Tracker, short_path
from magicbert.training.resuming import Resumer
from magicbert.training.samples import DatedSource, StepData
from magicbert.training.schedule import learning_rate
from magicbert.training.watching.heartbeat import PULSE
from magicbert.training.watching.interruption import Interruption

MOST_FAILED_SAVES = 3


class TrainingLoop:
    """Runs the steps.

    Args:
        parts: losses, batches and paths.
        sections: configuration.
        engine: the model on DeepSpeed.
        ranks: all ranks.
        resumer: keeps the state.
        run_facts: digests of what all ranks have been started on.
    """

    def __init__(
        self,
        parts: Parts,
        sections: Sections,
        engine: TrainingEngine,
        ranks: Ranks,
        resumer: Resumer,
        run_facts: Mapping[str, str] | None = None,
    ) -> None:
        self.parts, self.sections, self.engine = parts, sections, engine
        self.ranks, self.resumer = ranks, resumer
        self.run_facts = run_facts or {}
        self.training = sections.training
        supernet = engine.module.supernet
        self.meter = Meter(engine.device, ranks, parts.objective.logged)
        dev = parts.source.dev_batches(self.training.num_eval_batches)
        # Where weights are partitioned, those of more than one path may not fit.
        together = 1 if self.training.zero_stage == 3 else PATHS_AT_ONCE
        scoring = supernet, parts.objective
        self.evaluator = Evaluator(*scoring, dev, ranks, engine.gathered, together)
        few = parts.source.dev_batches(sections.alignment.num_dev_batches)
        self.anchor_scorer = Evaluator(*scoring, few, ranks, engine.gathered, together)
        self.paths = evaluation_paths(
            supernet.space, self.training.num_eval_paths, self.training.seed
        )
        self.failed_saves, self.saved_step = 0, 0

    def run(self, state: TrainState, tracker: Tracker, interruption: Interruption) -> Outcome:
        """Trains from ``state`` to the last step, or until it is told to stop."""
        self.tracker, self.saved_step, self.first_step = tracker, state.step, state.step
        self.state, self.interruption = state, interruption
        self.evaluator.interruption = interruption
        self.judge = StepJudge(self.engine, self.ranks, self.training, self.seed_dropout, tracker)
        self.deadline = Deadline(self.training.max_minutes)
        try:
            with self.batches(state.step) as batches:
                return self.make_steps(batches)
        except EvaluationStopped:
            interruption.agreed()
            self.save(self.state, is_needed=True)
            return Outcome("interrupted", self.state, None)

    def make_steps(self, batches: Iterator[StepData]) -> Outcome:
        """Makes one step after another; `state` is where the run stands."""
        valid = self.evaluate(self.state) if self.owes_evaluation() else None
        while self.state.step < self.training.num_steps:
            step = self.state.step
            PULSE.enter("step" if step > self.first_step else "start", step)
            fault("loop.step", step=step)
            previous = self.state.path
            data, path = self.read(batches), self.parts.sampler.next(step, previous)
            agreement = self.agree(path, data)
            if agreement.ending is not None:
                self.save(self.state, is_needed=True)
                return Outcome(agreement.ending, self.state, None)
            norm = self.train_step(path, data, agreement)
            self.state = state = self.state.after(path, agreement.num_positions)
            self.update_anchor(state)
            self.probe_interference(state.step, path, previous)
            self.check_replicas(state.step)
            valid = None
            if self.is_due(state.step, self.training.log_every):
                self.report(state, norm)
            if self.is_due(state.step, self.training.evaluate_every):
                valid = self.evaluate(state)
            if self.is_due(state.step, self.training.checkpoint_every):
                self.save(state, is_needed=state.step == self.training.num_steps)
        return Outcome("finished", self.state, valid or self.evaluate(self.state))

    def agree(self, path: Architecture, data: StepData) -> StepAgreement:
        """Exchanges the step's message and judges the step that it brings news of."""
        is_over = self.deadline.is_over and self.state.step > self.first_step
        notice = Notice(self.interruption.is_requested, is_over, *self.judge.take())
        agreement = agree(
            self.ranks, self.state.step, (path, self.anchor), self.parts.objective, data, notice,
            self.run_facts,
        )  # fmt: skip
        if agreement.is_interrupted:
            self.interruption.agreed()
        self.judge.judge(agreement.late_loss, agreement.is_skipped)
        return agreement

    def read(self, batches: Iterator[StepData]) -> StepData:
        """Returns the next step's data; waiting for it is this rank's own time."""
        with self.own_time():
            return next(batches)

    def probe_interference(
        self, step: int, path: Architecture, previous: Architecture | None
    ) -> None:
        """Compares the gradients of the last two paths, on the first rank alone."""
        every, probe = self.training.probe_interference_every, self.parts.probe
        is_due = every and step % every == 0
        if probe is None or previous is None or not is_due or not self.ranks.is_first:
            return
        batch = self.parts.source.dev_batches(1)[0].to(self.engine.device)
        values = probe(self.engine.module.supernet, batch, path, previous)
        self.tracker.record("interference", step, dict(values))

    def owes_evaluation(self) -> bool:
        """Whether the last start was stopped in an evaluation, before its result was written."""
        step = self.state.step
        if not step or step % self.training.evaluate_every or step == self.training.num_steps:
            return False
        rows = read_metrics(self.tracker.trail.folder) if self.ranks.is_first else []
        is_there = any(row.get("kind") == "valid" and row.get("step") == step for row in rows)
        return not self.ranks.from_first(int(is_there))

    def check_replicas(self, step: int) -> None:
        """Compares the weights of all ranks, where all hold the same."""
        every = self.training.check_replicas_every
        if (
            every
            and step % every == 0
            and self.training.zero_stage < 3
            and self.ranks.num_ranks > 1
        ):
            with self.not_training():
                module, optimizer = self.engine.module, self.engine.optimizer
                check_replicas(module, optimizer, self.ranks, step)

    @contextmanager
    def batches(self, first_step: int) -> Iterator[Iterator[StepData]]:
        """Gives what this rank reads, step by step, prepared in the background."""
        ranks, source = self.ranks, DatedSource(self.parts.source)
        with Prefetcher(source, ranks.rank, ranks.num_ranks, first_step) as prefetcher:
            yield (data for (data,) in prefetcher)

    @property
    def anchor(self) -> Architecture | None:
        """The path that others are aligned to; ``None`` = no alignment (yet)."""
        return self.parts.anchors.anchor if self.parts.anchors else None

    def children(self, step: int, path: Architecture) -> tuple[Architecture, ...]:
        """The paths whose mean others are aligned to, in place of an anchor."""
        return self.parts.anchors.children(step, path) if self.parts.anchors else ()

    def is_due(self, step: int, every: int) -> bool:
        """Whether something is done after ``step`` steps: every so often and at the end."""
        return step % every == 0 or step == self.training.num_steps

    def train_step(self, path: Architecture, data: StepData, agreement: StepAgreement) -> Tensor:
        """Makes one optimizer step; returns the gradient norm, still on the device."""
        step, micro_batches = data.step, data.micro_batches
        rate = learning_rate(self.sections.optimizer, step, self.training.num_steps)
        plan = StepPlan(
            step, path, self.anchor, agreement.count, agreement.num_positions,
            self.engine.loss_scale, self.children(step, path), agreement.num_auxiliary,
        )  # fmt: skip
        self.engine.begin_step(path, rate, plan.anchor)
        last, total = len(micro_batches) - 1, None
        for number, batch in enumerate(micro_batches):
            self.seed_dropout(step, number)
            with self.own_time():
                fault("loop.forward", step=step)
                on_device = batch.to(self.engine.device)
                loss, task, aligned, logged = self.engine.forward(
                    on_device, plan, is_last=number == last
                )
            total = task if total is None else total + task
            self.engine.backward(self.judge.shield(loss, total) if number == last else loss)
            self.meter.add(task, aligned, logged)
        self.meter.end_step(agreement.num_positions)
        fault("loop.optimizer", step=step)
        norm = self.engine.step()
        assert total is not None
        self.judge.put(plan, data, total, norm)
        return norm

    def seed_dropout(self, step: int, number: int) -> None:
        """Seeds the dropout of one of this rank's micro-batches."""
        position = number * self.ranks.num_ranks + self.ranks.rank
        seed_dropout(self.training.seed, step, position)

    def update_anchor(self, state: TrainState) -> None:
        """Lets the policy compare the anchor with the path just trained."""
        if self.parts.anchors is None or state.path is None:
            return
        event = self.parts.anchors.update(state.step - 1, state.path, self.accuracies)
        if event is not None:
            values = {
                "anchor": str(event.anchor),
                "score": event.score,
                "challenger": str(event.challenger),
                "challenger_score": event.challenger_score,
                "replaced": event.replaced,
            }
            self.tracker.record("anchor", state.step, values)

    def accuracies(self, paths: Collection[Architecture]) -> dict[Architecture, float]:
        """Returns the dev accuracies of some paths with the weights of the moment."""
        scores = self.anchor_scorer.scores(paths)
        return {path: score.accuracy for path, score in scores.items()}

    def report(self, state: TrainState, norm: Tensor) -> None:
        """Reads the window's sums (the one wait for the device) and writes them."""
        loss, aligned, speed = self.meter.read()
        values = {
            "loss": finite(loss),
            "learning_rate": learning_rate(
                self.sections.optimizer, state.step - 1, self.training.num_steps
            ),
            "grad_norm": finite(float(norm)),
            "tokens_per_second": round(speed, 1),
            "path": str(state.path),
        }
        if self.parts.anchors is not None:
            values["alignment"] = finite(aligned)
        values |= self.parts.objective.rates(self.meter.logged)
        self.tracker.record("train", state.step, values)
        text = f"loss {loss:.4f}  {speed:,.0f} tokens/s  {short_path(str(state.path))}"
        self.tracker.show(state.step, text)
        if self.meter.straggler is not None:
            self.tracker.say(f"step {state.step}: {self.meter.straggler}", logging.WARNING)

    def evaluate(self, state: TrainState) -> Score:
        """Scores the fixed paths, and the anchor, on the held-out split."""
        with self.not_training(), PULSE.during("evaluate"):
            fault("loop.evaluate", step=state.step)
            valid = self.evaluator.mean(self.paths)
            values = {"loss": valid.loss, "accuracy": valid.accuracy}
            if self.anchor is not None:
                anchored = self.evaluator.score(self.anchor)
                values |= {"anchor_loss": anchored.loss, "anchor_accuracy": anchored.accuracy}
        logged = dict(zip(self.parts.objective.logged, valid.logged, strict=False))
        finite_values = {name: finite(value) for name, value in values.items()}
        finite_values |= self.parts.objective.rates(logged) if logged else {}
        self.tracker.record("valid", state.step, finite_values)
        self.tracker.say(
            f"step {state.step}/{self.training.num_steps}  "
            f"valid loss {valid.loss:.4f}  accuracy {valid.accuracy:.4f}"
        )
        return valid

    def save(self, state: TrainState, *, is_needed: bool) -> None:
        """Writes a checkpoint, unless this step has one; training goes on after a failure or two.

        Raises:
            AgreedError: it could not be written, and it was needed or not the first failure.
        """
        if state.step == self.saved_step:
            return
        with self.not_training(), PULSE.during("save"):
            fault("loop.save", step=state.step)
            self.judge.check_masters(state.step)
            try:
                self.resumer.save(state)
                self.failed_saves, self.saved_step = 0, state.step
            except DisagreementError:
                raise
            except AgreedError as error:
                self.failed_saves += 1
                if is_needed or self.failed_saves >= MOST_FAILED_SAVES:
                    raise
                self.tracker.say(f"step {state.step}: {error}; training goes on", logging.WARNING)

    @contextmanager
    def own_time(self) -> Iterator[None]:
        """Counts the time of the block as this rank's own: it waits for no other rank in it."""
        start = time.monotonic()
        yield
        self.meter.add_own(time.monotonic() - start)

    @contextmanager
    def not_training(self) -> Iterator[None]:
        """Keeps the time of the block out of the throughput."""
        start = time.monotonic()
        yield
        self.meter.pause(time.monotonic() - start)


def finite(value: float) -> float | None:
    """Returns a value that JSON can hold: ``None`` for NaN and infinities."""
    return value if math.isfinite(value) else None
