"""What a study asks of the tenant whose models it trains."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from magicbert.space import Architecture, SearchSpace
from magicbert.space.cost import Cost
from magicbert.study.units import AloneUnit
from magicbert.supernet.objective import BatchSource, Objective
from magicbert.supernet.stacked_models import StackedModels
from magicbert.supernet.supernet import Supernet
from magicbert.training.parts import Probe


class Tenant(Protocol):
    """Builds models and batches, in the process that trains them."""

    @property
    def objective(self) -> Objective:
        """The task loss."""
        ...

    @property
    def probe(self) -> Probe:
        """Compares two paths' gradients on a batch."""
        ...

    def build(self, space: SearchSpace, seed: int) -> Supernet:
        """Returns a supernet with new weights, on the device to train on."""
        ...

    def stack(self, supernets: Sequence[Supernet]) -> StackedModels:
        """Returns supernets as one module that runs a path of each, with copies of their weights.

        Raises:
            UserError: they cannot train side by side.
        """
        ...

    def source(self, seed: int) -> BatchSource:
        """Returns the batches of a seed, to train on."""
        ...

    def dev_batches(self) -> list[Any]:
        """Returns the fixed batches behind every loss; no seed has a say in them."""
        ...

    def cost(self, architecture: Architecture) -> Cost:
        """Returns parameters, and FLOPs of one row's forward, of the encoder."""
        ...

    def forward_flops(self, architecture: Architecture) -> float:
        """Returns the FLOPs of one row's forward with what stands on top of the encoder."""
        ...

    def keep(self, supernet: Supernet, unit: AloneUnit, folder: Path) -> None:
        """Writes a trained model as `finetune` reads it."""
        ...

    def finetune(self, folder: Path, task: str, seed: int) -> tuple[str, float]:
        """Fine-tunes a kept model; returns the name of the metric and its value."""
        ...
