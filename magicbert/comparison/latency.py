"""Latency of forms of models that take turns, so that what the machine does meanwhile hits all."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from magicbert.bench.instruments import CPU_MODES, ProcessorClock
from magicbert.bench.measuring import rounded
from magicbert.bench.ratios import spread
from magicbert.bench.registry import Contender
from magicbert.bench.turns import Pace, take_turns

Batch = Mapping[str, Tensor]
Form = Callable[[Batch], Any]
MILLISECONDS = 1e3
# Inputs that calls rotate over.
NUM_SETS = 2


@dataclass(frozen=True, slots=True)
class Timing:
    """How forms are timed.

    Attributes:
        rows: of one call.
        length: tokens of a row, none of them padding.
        rounds: turns of each form.
        turn_seconds: how long a turn lasts.
        threads: of torch and of the forms' sessions.
    """

    rows: int
    length: int
    rounds: int
    turn_seconds: float = 0.05
    threads: int = 1


def measure_latency(
    forms: Mapping[str, Form], batches: Mapping[str, Sequence[Batch]], timing: Timing
) -> dict[str, dict[str, Any]]:
    """Returns, per form, milliseconds of a call by clock: median over rounds and its interval.

    Args:
        forms: what is called, by name.
        batches: inputs of each form, as many for each.
        timing: how.
    """

    def contender(name: str) -> Contender:
        form, inputs = forms[name], batches[name]
        return Contender(name, lambda index: form(inputs[index % len(inputs)]))

    pace = Pace(timing.rounds, timing.turn_seconds)
    with torch.inference_mode(), num_threads(timing.threads):
        turns = take_turns([contender(name) for name in forms], ProcessorClock(), pace, NUM_SETS)
    measured: dict[str, dict[str, Any]] = {}
    for name in forms:
        failed = turns.failed.get(CPU_MODES[0], {}).get(name)
        measured[name] = {"failed": failed} if failed else {
            mode: rounded(spread([MILLISECONDS * value for value in turns.times[mode][name]]))
            for mode in CPU_MODES
        }  # fmt: skip
    return measured


def random_batches(vocab_size: int, names: Sequence[str], timing: Timing) -> list[Batch]:
    """Returns full rows of random tokens: the time of a forward does not depend on which."""
    generator = torch.Generator().manual_seed(0)
    shape = (timing.rows, timing.length)
    batches: list[Batch] = []
    for _ in range(NUM_SETS):
        tokens = torch.randint(vocab_size, shape, generator=generator)
        fields = {
            "input_ids": tokens,
            "attention_mask": torch.ones_like(tokens),
            "token_type_ids": torch.zeros_like(tokens),
        }
        batches.append({name: fields[name] for name in names})
    return batches


@contextmanager
def num_threads(count: int) -> Iterator[None]:
    """Gives torch so many threads in the block."""
    former = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(former)
