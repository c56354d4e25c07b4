"""How much of a training step is spent waiting for its batch."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import torch

from magicbert.bench.data.corpus import LENGTH, token_source
from magicbert.bench.registry import OWN, Case, Contender, Floor, Lineup, Trial, Verdict
from magicbert.bench.step.runners import EngineRunner
from magicbert.bench.step.sizes import MODELS, StepSize, precision_on
from magicbert.bert.supernet import BertSupernet
from magicbert.data.batch import TokenBatch
from magicbert.data.loader import Prefetcher
from magicbert.space import Architecture, SearchSpace

MODEL = {"cpu": "L4 H256", "cuda": "base"}
ROWS = {"cpu": 16, "cuda": 512}
NUM_STEPS = {"cpu": 5, "cuda": 40}
NUM_WARM_STEPS = 2
AT_HAND = "the same step, its batch at hand"


def waiting_case(folder: Path, seed: int, device: torch.device, *, peers: bool) -> Case:
    """Returns the case: steps of a plain BERT fed by the loader's thread.

    Args:
        folder: what ``magicbert prepare`` wrote.
        seed: of weights, order and masks.
        device: where steps run.
        peers: whether the step without a loader is measured beside it.
    """
    size = fed_size(device)

    def build(device: torch.device) -> Trial:
        return FedStep(folder, size, seed, device).trial(peers=peers)

    return Case("step fed by the loader", size.variant, build, unit="tokens", is_replayable=False)


def fed_size(device: torch.device) -> StepSize:
    """Returns model and batch for a device."""
    kind = device.type
    return StepSize(MODELS[MODEL[kind]], ROWS[kind], LENGTH, precision_on(device, "auto"))


class FedStep:
    """Builds the step with and without a loader.

    Args:
        folder: what ``magicbert prepare`` wrote.
        size: of model and batch.
        seed: of weights, order and masks.
        device: where steps run.
    """

    def __init__(self, folder: Path, size: StepSize, seed: int, device: torch.device) -> None:
        self.size, self.device = size, device
        self.path = Architecture((f"mha{size.model.num_heads}", "ffn") * size.model.num_layers)
        space = SearchSpace(tuple((name,) for name in self.path))
        supernet = BertSupernet(space, size.model.config(size.length), seed)
        self.runner = EngineRunner(supernet, size)
        source = token_source(folder, size.rows, seed)
        self.prefetcher: Prefetcher[TokenBatch] = Prefetcher(source, 0, 1)

    def trial(self, *, peers: bool) -> Trial:
        """Returns both, and the share of the wall's time that is spent waiting."""
        lineup = Lineup()
        lineup.add(OWN, lambda: self.fed)
        if peers:
            lineup.add(AT_HAND, self.at_hand)
        return Trial(
            lineup=lineup,
            judge=self.verdict,
            floor=Floor(),
            units=self.size.rows * self.size.length,
            facts={"waiting [% of the time]": self.percent_waited()},
            close=self.close,
        )

    def fed(self, index: int) -> None:
        """Makes a step with the loader's next batch."""
        (batch,) = next(self.prefetcher)
        self.runner.step(batch.to(self.device), self.path)

    def at_hand(self) -> Callable[[int], None]:
        """Returns a step whose batch lies on the device."""
        (batch,) = next(self.prefetcher)
        there = batch.to(self.device)
        return lambda index: self.runner.step(there, self.path)

    def percent_waited(self) -> float:
        """Makes some steps and returns how much of their time went into waiting for batches."""
        for index in range(NUM_WARM_STEPS):
            self.fed(index)
        self.finish()
        start, before = time.perf_counter(), self.prefetcher.seconds_waited
        for index in range(NUM_STEPS[self.device.type]):
            self.fed(index)
        self.finish()
        waited = self.prefetcher.seconds_waited - before
        return round(100 * waited / (time.perf_counter() - start), 3)

    def finish(self) -> None:
        """Waits for the device."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def verdict(self, contender: Contender) -> Verdict:
        """Counts weights that a step has broken."""
        contender.call(0)
        weights = self.runner.engine.module.parameters()
        return Verdict(float(sum(int((~torch.isfinite(w)).sum()) for w in weights)), 0.0)

    def close(self) -> None:
        """Ends the loader's thread and lets go of the engine."""
        self.prefetcher.close()
        self.runner.close()
