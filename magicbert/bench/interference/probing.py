"""The probe that compares consecutive paths while training, against the step that it rides on."""

from __future__ import annotations

import copy
from typing import Any

import torch

from magicbert.bench.registry import OWN, Case, Contender, Floor, Lineup, Trial, Verdict
from magicbert.bench.step.runners import EngineRunner, endless
from magicbert.bench.step.sizes import StepSize
from magicbert.bench.step.supernet import SupernetStep
from magicbert.bert.objectives.mlm import MaskedLanguageModeling
from magicbert.interference.probe import InterferenceProbe
from magicbert.space import Architecture
from magicbert.supernet.sampling import MagicTSampler

STEP = "training step"


def probe_case(size: StepSize, seed: int) -> Case:
    """Returns the case: one probe, and one step of MAGIC-T on the same batch.

    A probe every n steps costs a share of ``1 / (n x ratio)`` of training, ratio the step's time
    over the probe's.
    """

    def build(device: torch.device) -> Trial:
        return ProbeTrial(size, seed, device).trial()

    variant = {**size.variant, "layers": 2 * size.model.num_layers, "candidates": 4}
    return Case("probe of interference", variant, build, unit="tokens", is_replayable=False)


class ProbeTrial:
    """Builds probe and step, each on a supernet of its own.

    Args:
        size: of model and batch.
        seed: of weights, documents and paths.
        device: where they run.
    """

    def __init__(self, size: StepSize, seed: int, device: torch.device) -> None:
        supernet = SupernetStep(size, seed, device)
        self.size, self.batch = size, supernet.judged
        self.engine = EngineRunner(copy.deepcopy(supernet.source), size)
        self.supernet = supernet.source.to(device)
        self.probe = InterferenceProbe(MaskedLanguageModeling())
        self.paths = endless(MagicTSampler(supernet.space, seed, num_changes=1))
        self.previous = next(self.paths)

    def trial(self) -> Trial:
        """Returns both; there is no floor, the step is what counts."""
        lineup = Lineup()
        lineup.add(OWN, lambda: self.probe_once)
        lineup.add(STEP, lambda: self.step_once)
        return Trial(
            lineup=lineup,
            judge=self.verdict,
            floor=Floor(),
            units=self.size.rows * self.size.length,
            close=self.engine.close,
        )

    def next_paths(self) -> tuple[Architecture, Architecture]:
        """Returns the next path of the walk and the one before it."""
        previous, self.previous = self.previous, next(self.paths)
        return self.previous, previous

    def probe_once(self, index: int) -> dict[str, Any]:
        """Compares two consecutive paths."""
        return self.probe(self.supernet, self.batch, *self.next_paths())

    def step_once(self, index: int) -> None:
        """Trains one path."""
        self.engine.step(self.batch, self.next_paths()[0])

    def verdict(self, contender: Contender) -> Verdict:
        """A path has a cosine of 1 with itself, and the next one shares all layers but one."""
        if contender.name != OWN:
            return Verdict(0.0, 0.0)
        path = self.previous
        same = self.probe(self.supernet, self.batch, path, path)["cosine"]
        shared = self.probe_once(0)["num_shared"]
        is_one_off = shared == self.supernet.space.num_layers - 1
        return Verdict(abs(1.0 - float(same or 0.0)) if is_one_off else 1.0, 1e-4)
