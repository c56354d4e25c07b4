"""All cases of ``bench step``, those that tell most first."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import torch

from magicbert.bench.registry import Case
from magicbert.bench.step.plain import plain_case
from magicbert.bench.step.sizes import step_size
from magicbert.bench.step.supernet import supernet_case
from magicbert.bench.suite import Suite, chosen_device
from magicbert.config.roots import BenchConfig
from magicbert.errors import UserError

# Kind of case, model and length.
CASES = {
    "cuda": (
        ("full", "base", 128),
        ("supernet", "base", 128),
        ("mixed", "base", 512),
        ("mixed", "large", 512),
        ("full", "base", 512),
        ("mixed", "base", 128),
    ),
    "cpu": (("full", "L4 H256", 128), ("supernet", "L4 H256", 128), ("mixed", "L4 H256", 128)),
}
KINDS = ("full", "mixed", "supernet")
# A step takes seconds on a CPU.
ROUNDS = {"cuda": 7, "cpu": 5}


def step_suite(config: BenchConfig) -> Suite:
    """Returns every case that the configuration asks for.

    Raises:
        UserError: it asks for none, or for what is not there.
    """
    device = chosen_device(config.measure.device)
    cases = list(step_cases(config, device))
    if not cases:
        raise UserError(f"step.cases: {list(config.step.cases)} matches none of {', '.join(KINDS)}")
    rounds = config.measure.rounds or ROUNDS[device.type]
    pace = dataclasses.replace(config.measure, rounds=rounds)
    setting = {"seed": pace.seed, "peers": pace.peers, "compiled": config.step.compiled}
    return Suite("step", cases, device, pace, setting)


def step_cases(config: BenchConfig, device: torch.device) -> Iterator[Case]:
    """Yields the cases; models and lengths that are given replace those of the device."""
    setting, pace = config.step, config.measure
    asked = CASES[device.type]
    if setting.models or setting.lengths:
        models = setting.models or tuple(dict.fromkeys(model for _, model, _ in asked))
        lengths = setting.lengths or tuple(dict.fromkeys(length for *_, length in asked))
        asked = tuple((k, m, length) for m in models for length in lengths for k in KINDS)
    for kind, model, length in asked:
        if setting.cases and kind not in setting.cases:
            continue
        size = step_size(model, length, setting, device)
        if kind == "supernet":
            yield supernet_case(size, pace.seed, peers=pace.peers)
        else:
            compiled = setting.compiled
            yield plain_case(size, kind, pace.seed, peers=pace.peers, compiled=compiled)
