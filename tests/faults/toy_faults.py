"""What goes wrong in a rank of `toy_rank`, and defences taken out of the product, for mutants.

Each function is ``(parts, config, argument) -> (parts, config) | None`` and is called on every
rank before training; ``argument`` is text from the trial's settings.
"""

from __future__ import annotations

import ctypes
import os
import re
import time
from dataclasses import replace
from typing import Any

import torch

from magicbert import faults
from magicbert.config.roots import PretrainConfig
from magicbert.training import control, loop, ranks, run
from magicbert.training.numbers import anomalies, judging
from magicbert.training.parts import Parts
from magicbert.training.watching import watchdog
from magicbert.training.watching.heartbeat import PULSE

Changed = tuple[Parts, PretrainConfig] | None


def note(text: str) -> None:
    """Writes down that a fault took place."""
    with open(os.environ[faults.LOG_VARIABLE], "a") as log:
        log.write(text + "\n")


def is_here(where: str) -> bool:
    """Whether ``rank`` of ``rank:step`` is this one."""
    return int(where.split(":")[0]) == int(os.environ["RANK"])


def step_of(where: str) -> int:
    return int(where.split(":")[1])


# --- ranks that lose step ------------------------------------------------------------------------


def other_path(parts: Parts, config: PretrainConfig, where: str) -> Changed:
    """One rank samples another path of equal shape at one step."""
    inner = parts.sampler.next

    def sample(step: int, previous: Any) -> Any:
        path = inner(step, previous)
        if step != step_of(where) or not is_here(where):
            return path
        note(f"other path at {step}")
        names = list(path)
        names[0] = "small" if names[0] != "small" else "large"
        return type(path)(tuple(names))

    parts.sampler.next = sample  # type: ignore[method-assign]
    return None


def other_data(parts: Parts, config: PretrainConfig, where: str) -> Changed:
    """From some step on, one rank reads a step ahead."""
    inner = parts.source.step_batches

    def read(step: int, rank: int, num_ranks: int) -> Any:
        if step < step_of(where) or not is_here(where):
            return inner(step, rank, num_ranks)
        note(f"other data at {step}")
        return inner(step + 1, rank, num_ranks)

    parts.source.step_batches = read  # type: ignore[method-assign]
    return None


def other_seed(parts: Parts, config: PretrainConfig, where: str) -> Changed:
    """One rank was started with another seed."""
    if not is_here(where):
        return None
    note("other seed")
    return parts, replace(config, training=replace(config.training, seed=7))


def other_code(parts: Parts, config: PretrainConfig, where: str) -> Changed:
    """One rank runs another version of the program."""
    if is_here(where):
        note("other code")
        from magicbert.training.starting import run_facts

        run_facts.code_digest = lambda: "0" * 12
    return None


def other_tokens(parts: Parts, config: PretrainConfig, where: str) -> Changed:
    """One rank's order of the samples is that of other prepared data."""
    inner = parts.source.sample_ids  # type: ignore[attr-defined]

    def order(step: int) -> Any:
        if step < step_of(where) or not is_here(where):
            return inner(step)
        note(f"other order at {step}")
        return range(1000, 1000 + len(inner(step)))

    parts.source.sample_ids = order  # type: ignore[attr-defined]
    return None


def skipped_step(parts: Parts, config: PretrainConfig, where: str) -> Changed:
    """One rank goes on with the next step, one call earlier than the others."""
    inner = loop.TrainingLoop.agree

    def agree(self: Any, path: Any, data: Any) -> Any:
        if data.step == step_of(where) and is_here(where):
            note(f"skipped {data.step}")
            self.state = self.state.after(path, 0)
        return inner(self, path, data)

    loop.TrainingLoop.agree = agree  # type: ignore[method-assign]
    return None


def other_view(parts: Parts, config: PretrainConfig, where: str) -> Changed:
    """One rank believes that a gradient was not finite."""
    inner = judging.StepJudge.take

    def take(self: Any) -> Any:
        loss, is_skipped = inner(self)
        step = self.current.plan.step if self.current is not None else None
        if step == step_of(where) and is_here(where):
            note("other view")
            return loss, True
        return loss, is_skipped

    judging.StepJudge.take = take  # type: ignore[method-assign]
    return None


# --- numbers -------------------------------------------------------------------------------------


def bad_input(parts: Parts, config: PretrainConfig, where: str) -> Changed:
    """``rank:first:last:value``: one rank's batches hold the value in those steps."""
    _, first, last, value = where.split(":")
    inner = parts.source.step_batches

    def read(step: int, rank: int, num_ranks: int) -> Any:
        batches = inner(step, rank, num_ranks)
        if int(first) <= step <= int(last) and is_here(where):
            note(f"bad input at {step}")
            for batch in batches:
                scale = float(value)
                batch.inputs.copy_(batch.inputs * scale if scale > 1 else torch.full((), scale))
        return batches

    parts.source.step_batches = read  # type: ignore[method-assign]
    return None


def bad_gradient(parts: Parts, config: PretrainConfig, where: str) -> Changed:
    """One element of one rank's gradient is not a number at one step."""
    inner = loop.TrainingLoop.train_step

    def train_step(self: Any, path: Any, data: Any, agreement: Any) -> Any:
        if data.step != step_of(where) or not is_here(where):
            return inner(self, path, data, agreement)
        note(f"bad gradient at {data.step}")
        head = self.engine.module.supernet.head.weight

        def spoil(gradient: Any) -> Any:
            gradient = gradient.clone()
            gradient.view(-1)[0] = float("nan")
            return gradient

        hook = head.register_hook(spoil)
        norm = inner(self, path, data, agreement)
        hook.remove()
        return norm

    loop.TrainingLoop.train_step = train_step  # type: ignore[method-assign]
    return None


def bad_weight(parts: Parts, config: PretrainConfig, where: str) -> Changed:
    """A weight of one rank's share of an operator is not a number, in model and master."""
    return _change_weight(where, float("nan"))


def flipped_bit(parts: Parts, config: PretrainConfig, where: str) -> Changed:
    """One bit of one rank's copy of a weight is flipped."""
    return _change_weight(where, None)


def _change_weight(where: str, value: Any) -> Changed:
    """Changes an operator that the next step does not train, which would mend it."""
    inner = loop.TrainingLoop.train_step

    def train_step(self: Any, path: Any, data: Any, agreement: Any) -> Any:
        norm = inner(self, path, data, agreement)
        if data.step == step_of(where) and is_here(where):
            note(f"weight changed after {data.step}")
            operators = self.engine.module.supernet.layers[0]
            coming = self.parts.sampler.next(data.step + 1, path)
            unused = next(name for name in operators if name not in (path[0], coming[0]))
            weight = operators[unused].inner.weight.data.view(-1)
            if value is None:
                words = weight.view(torch.int16 if weight.element_size() == 2 else torch.int32)
                words[3] ^= 1 << 9
            else:
                weight[0] = value
                optimizer = self.engine.optimizer
                for group, master in zip(optimizer.param_groups, optimizer.masters, strict=True):
                    if group["name"] == f"layers.0.{unused}/decay":
                        master.detach()[0] = value
        return norm

    loop.TrainingLoop.train_step = train_step  # type: ignore[method-assign]
    return None


def spiking_loss(parts: Parts, config: PretrainConfig, where: str) -> Changed:
    """One rank's loss is a hundred times what it should be, at one step."""
    kind = type(parts.objective)
    inner = kind.__call__

    def call(self: Any, *arguments: Any) -> Any:
        output = inner(self, *arguments)
        if PULSE.step != step_of(where) or not is_here(where) or not torch.is_grad_enabled():
            return output
        note(f"spike at {PULSE.step}")
        return replace(output, loss_sum=output.loss_sum * 100)

    kind.__call__ = call  # type: ignore[method-assign]
    return None


def crash(parts: Parts, config: PretrainConfig, where: str) -> Changed:
    """One rank reads where it may not."""
    inner = loop.TrainingLoop.train_step

    def train_step(self: Any, path: Any, data: Any, agreement: Any) -> Any:
        if data.step == step_of(where) and is_here(where):
            note("crashes")
            ctypes.string_at(0)
        return inner(self, path, data, agreement)

    loop.TrainingLoop.train_step = train_step  # type: ignore[method-assign]
    return None


# --- a rank that is stuck ------------------------------------------------------------------------


def held_interpreter(parts: Parts, config: PretrainConfig, where: str) -> Changed:
    """One rank sits in native code without giving up the interpreter's lock."""
    inner = loop.TrainingLoop.train_step

    def train_step(self: Any, path: Any, data: Any, agreement: Any) -> Any:
        if data.step == step_of(where) and is_here(where):
            note("holds the interpreter")
            # Matching tries 2**60 ways without ever giving the lock up.
            re.match("(a+)+$", "a" * 60 + "b")
        return inner(self, path, data, agreement)

    loop.TrainingLoop.train_step = train_step  # type: ignore[method-assign]
    return None


def slow_rank(parts: Parts, config: PretrainConfig, where: str) -> Changed:
    """One rank reads slowly."""
    inner = loop.TrainingLoop.read

    def read(self: Any, batches: Any) -> Any:
        with self.own_time():
            time.sleep(0.2 if is_here(where) else 0.0)
        return inner(self, batches)

    if is_here(where):
        note("slow")
    loop.TrainingLoop.read = read  # type: ignore[method-assign]
    return None


# --- mutants -------------------------------------------------------------------------------------


def no_fingerprint(parts: Parts, config: PretrainConfig, _: str) -> Changed:
    """Calls between ranks agree whatever they are."""
    ranks.is_common = lambda sums, num_ranks: True
    return None


def no_samples(parts: Parts, config: PretrainConfig, _: str) -> Changed:
    """The samples of a step are not counted."""
    control.MODULUS = 1
    inner = control.agree

    def agree(ranks: Any, step: int, paths: Any, objective: Any, data: Any, *rest: Any) -> Any:
        return inner(ranks, step, paths, objective, replace(data, all_samples=0), *rest)

    loop.agree = agree
    return None


def no_start_check(parts: Parts, config: PretrainConfig, _: str) -> Changed:
    """Ranks do not compare what they were started on."""
    run.agree_on_run = lambda ranks, identity: {}
    return None


def no_watchdog(parts: Parts, config: PretrainConfig, _: str) -> Changed:
    """Nothing watches the phases."""
    watchdog.Watchdog._expire = lambda self, limit: None  # type: ignore[method-assign]
    watchdog.Watchdog._wind_up = lambda self, seconds: None  # type: ignore[method-assign]
    return None


def no_budget(parts: Parts, config: PretrainConfig, _: str) -> Changed:
    """Bad steps are borne without end."""
    inner = anomalies.Anomalies.judge

    def judge(self: Any, step: int, loss: float, is_skipped: bool) -> Any:
        anomaly = inner(self, step, loss, is_skipped)
        return anomaly and replace(anomaly, is_last_straw=False)

    anomalies.Anomalies.judge = judge  # type: ignore[method-assign]
    return None


def no_skip(parts: Parts, config: PretrainConfig, _: str) -> Changed:
    """A gradient that is not finite is applied."""
    inner = loop.TrainingLoop.__init__

    def build(self: Any, *arguments: Any) -> None:
        inner(self, *arguments)
        update = self.engine.optimizer.update
        norm = update.norm
        # What the step divides by and skips by is finite; the gradients stay as they are.
        update.norm = lambda gradients: torch.nan_to_num(norm(gradients), nan=1.0)

    loop.TrainingLoop.__init__ = build  # type: ignore[method-assign]
    return None


def no_spikes(parts: Parts, config: PretrainConfig, _: str) -> Changed:
    """No loss is a spike."""
    anomalies.Anomalies.threshold = property(lambda self: float("inf"))  # type: ignore[assignment]
    return None


def no_replicas(parts: Parts, config: PretrainConfig, _: str) -> Changed:
    """Replicas are not compared."""
    loop.check_replicas = lambda *_: None
    return None


def no_obituary(parts: Parts, config: PretrainConfig, _: str) -> Changed:
    """A rank that loses another does not look who it was."""
    from magicbert.training.watching import guarding

    guarding.find_dead = lambda watchdog: []
    return None


def no_straggler(parts: Parts, config: PretrainConfig, _: str) -> Changed:
    """Slow ranks are not looked for."""
    from magicbert.training.reporting import meter

    meter.straggler = lambda own_seconds, window_seconds: None
    return None


def no_agreed_stop(parts: Parts, config: PretrainConfig, _: str) -> Changed:
    """A rank that was told to stop does not tell the others."""
    from magicbert.training.watching.interruption import Interruption

    def request(self: Any, number: int = 0, frame: Any = None) -> None:
        os._exit(143)

    Interruption.request = request  # type: ignore[method-assign]
    Interruption.receive = request  # type: ignore[method-assign]
    return None
