"""All cases of ``bench interference``."""

from __future__ import annotations

from magicbert.bench.interference.gram import gram_case
from magicbert.bench.interference.probing import probe_case
from magicbert.bench.step.sizes import step_size
from magicbert.bench.suite import Suite, chosen_device
from magicbert.config.roots import BenchConfig

MODELS = {"cuda": "base", "cpu": "L4 H256"}
LENGTH = 128


def interference_suite(config: BenchConfig) -> Suite:
    """Returns both cases; ``step.models`` gives the probe another model."""
    device, pace = chosen_device(config.measure.device), config.measure
    model = config.step.models[0] if config.step.models else MODELS[device.type]
    size = step_size(model, LENGTH, config.step, device)
    cases = [gram_case(pace.seed, peers=pace.peers), probe_case(size, pace.seed)]
    return Suite("interference", cases, device, pace, {"seed": pace.seed, "peers": pace.peers})
