"""A tenant without text: three linear operators on vectors. It proves the core needs no tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from magicbert.space import SearchSpace
from magicbert.supernet.objective import LossOutput, Objective
from magicbert.supernet.stacked_models import StackedModels
from magicbert.supernet.supernet import Supernet, SupernetOutput

OPERATORS = ("small", "middle", "large")


@dataclass(frozen=True)
class ToyBatch:
    inputs: Tensor  # [rows, width]
    targets: Tensor  # [rows]: class 0 or 1; -1 = this row has no target

    def to(self, device: torch.device) -> ToyBatch:
        return ToyBatch(self.inputs.to(device), self.targets.to(device))


class ToyOperator(nn.Module):
    """``LN(x + W2 gelu(W1 x))`` with an inner width given by its name."""

    def __init__(self, name: str, width: int) -> None:
        super().__init__()
        inner = {"small": width, "middle": 2 * width, "large": 3 * width}[name]
        self.inner = nn.Linear(width, inner)
        self.outer = nn.Linear(inner, width)
        self.norm = nn.LayerNorm(width)

    def forward(self, hidden: Tensor, context: Any) -> Tensor:
        return self.norm(hidden + self.outer(nn.functional.gelu(self.inner(hidden))))


class ToySupernet(Supernet):
    def __init__(self, space: SearchSpace, width: int = 8) -> None:
        super().__init__(space, lambda layer, name: ToyOperator(name, width))
        self.embed = nn.Linear(width, width)
        self.head = nn.Linear(width, 2)

    def enter(self, batch: ToyBatch) -> tuple[Tensor, Any]:
        return self.embed(batch.inputs), None


class ToyObjective(Objective):
    """Cross-entropy on the rows that have a target."""

    def count(self, batch: ToyBatch) -> int:
        return int((batch.targets >= 0).sum())

    def num_tokens(self, batch: ToyBatch) -> int:
        return len(batch.targets)

    def read_loss(self, supernet: Supernet, batch: ToyBatch, output: SupernetOutput) -> LossOutput:
        counted = batch.targets >= 0
        logits = supernet.head(output.hidden[counted]).float()
        targets = batch.targets[counted]
        loss = nn.functional.cross_entropy(logits, targets, reduction="sum")
        correct = (logits.argmax(-1) == targets).sum().detach()
        return LossOutput(loss, len(targets), output, {"correct": correct})


@dataclass(frozen=True)
class ToyStackBatch:
    inputs: Tensor  # [models x rows, width]
    targets: Tensor  # [models x rows]

    def to(self, device: torch.device) -> ToyStackBatch:
        return ToyStackBatch(self.inputs.to(device), self.targets.to(device))


class ToyStack(StackedModels):
    def add_shared(self, supernets: Sequence[ToySupernet]) -> None:
        self.embed = self.stack([supernet.embed for supernet in supernets])
        self.head = self.stack([supernet.head for supernet in supernets])

    def collate(self, batches: Sequence[ToyBatch]) -> ToyStackBatch:
        inputs = torch.cat([batch.inputs for batch in batches])
        return ToyStackBatch(inputs, torch.cat([batch.targets for batch in batches]))

    def enter(self, batch: ToyStackBatch) -> tuple[Tensor, Any]:
        return self.embed(batch.inputs), None

    def read_losses(self, batch: ToyStackBatch, hidden: Tensor) -> Tensor:
        losses = nn.functional.cross_entropy(
            self.head(hidden), batch.targets, ignore_index=-1, reduction="none"
        )
        return losses.view(self.num_models, -1).sum(1)


class ToySource:
    """Random vectors whose class is the sign of their sum, keyed by (seed, step, row)."""

    def __init__(
        self, rows: int, num_micro_batches: int = 1, width: int = 8, seed: int = 0
    ) -> None:
        self.rows, self.num_micro_batches, self.width, self.seed = (
            rows, num_micro_batches, width, seed,
        )  # fmt: skip

    def _rows(self, step: int, count: int) -> ToyBatch:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + step)
        inputs = torch.randn(count, self.width, generator=generator)
        targets = (inputs.sum(-1) > 0).long()
        drop = torch.rand(count, generator=generator) < 0.3
        return ToyBatch(inputs, torch.where(drop, -1, targets))

    def step_batches(self, step: int, rank: int, num_ranks: int) -> list[ToyBatch]:
        whole = self._rows(step, self.rows * self.num_micro_batches * num_ranks)
        inputs = whole.inputs.chunk(self.num_micro_batches * num_ranks)
        targets = whole.targets.chunk(self.num_micro_batches * num_ranks)
        mine = range(rank, len(inputs), num_ranks)
        return [ToyBatch(inputs[i], targets[i]) for i in mine]

    def dev_batches(self, num_batches: int) -> list[ToyBatch]:
        return [self._rows(-1 - i, self.rows) for i in range(num_batches)]


def toy_space(num_layers: int = 3) -> SearchSpace:
    return SearchSpace.uniform(num_layers, OPERATORS)
