"""The smallest tenant that has every part: tokens in, a chain of choices, a loss over tokens.

The layers are so light that nothing hides the cost of the optimizer step behind the model's own
work: LayerNorm, Linear(d, d), GELU, Linear(d, d), with a residual around them.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from magicbert.config.sections import EngineBenchSection
from magicbert.space import Architecture, SearchSpace
from magicbert.supernet.objective import LossOutput, Objective
from magicbert.supernet.supernet import Supernet, SupernetOutput

VOCAB_SIZE = 100


def bench_space(setting: EngineBenchSection, num_candidates: int) -> SearchSpace:
    """Returns the space: every layer has the same number of equal operators."""
    names = tuple(f"op{number}" for number in range(num_candidates))
    return SearchSpace.uniform(setting.num_layers, names)


class Operator(nn.Module):
    """``x + W2 gelu(W1 LN(x))``, all of one width.

    Args:
        width: hidden size.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.inner = nn.Linear(width, width)
        self.outer = nn.Linear(width, width)

    def forward(self, hidden: Tensor, context: Any = None) -> Tensor:
        """Returns the hidden state after this layer, ``[rows, length, width]``."""
        out: Tensor = self.outer(nn.functional.gelu(self.inner(self.norm(hidden))))
        return hidden + out


class BenchSupernet(Supernet):
    """The chain with all candidates.

    Args:
        space: candidates per layer.
        width: hidden size.

    Attributes:
        anchor_seconds: processor time of the latest forward without gradients, MAGIC-A's anchor.
    """

    def __init__(self, space: SearchSpace, width: int) -> None:
        super().__init__(space, lambda layer, name: Operator(width))
        self.embed = nn.Embedding(VOCAB_SIZE, width)
        self.head = nn.Linear(width, VOCAB_SIZE)
        self.anchor_seconds = 0.0

    def enter(self, batch: Tensor) -> tuple[Tensor, Any]:
        """Returns the embedded tokens and no context."""
        return self.embed(batch), None

    def forward(
        self, batch: Tensor, architecture: Architecture, block_ends: Sequence[int] = ()
    ) -> SupernetOutput:
        """Runs one path; see `Supernet.forward`."""
        start = time.process_time()
        output = super().forward(batch, architecture, block_ends)
        if not torch.is_grad_enabled():
            self.anchor_seconds = time.process_time() - start
        return output


class TokenObjective(Objective):
    """Every token is predicted at its own place."""

    def count(self, batch: Tensor) -> int:
        """Returns the number of tokens."""
        return batch.numel()

    def num_tokens(self, batch: Tensor) -> int:
        """Returns the number of tokens."""
        return batch.numel()

    def read_loss(self, supernet: Supernet, batch: Tensor, output: SupernetOutput) -> LossOutput:
        """Returns the sum of the losses."""
        logits = cast(BenchSupernet, supernet).head(output.hidden).flatten(0, 1)
        return LossOutput(
            cross_entropy(logits, batch.flatten(), reduction="sum"), batch.numel(), output
        )


class SupernetWithLoss(nn.Module):
    """A supernet as stock DeepSpeed and torch take it: a module that returns a mean loss.

    Args:
        supernet: the model.
    """

    def __init__(self, supernet: BenchSupernet) -> None:
        super().__init__()
        self.supernet = supernet

    def forward(self, batch: Tensor, architecture: Architecture) -> Tensor:
        """Returns the mean loss of one path."""
        loss = TokenObjective()(self.supernet, batch, architecture)
        return loss.loss_sum / loss.count


class PlainModel(nn.Module):
    """Only one path's operators: what a user without a supernet would train.

    Args:
        setting: layers and hidden size.
    """

    def __init__(self, setting: EngineBenchSection) -> None:
        super().__init__()
        width = setting.hidden_size
        self.embed = nn.Embedding(VOCAB_SIZE, width)
        self.layers = nn.Sequential(*(Operator(width) for _ in range(setting.num_layers)))
        self.head = nn.Linear(width, VOCAB_SIZE)

    def forward(self, batch: Tensor, architecture: Architecture) -> Tensor:
        """Returns the mean loss; there is one path only, whichever was asked for."""
        logits = self.head(self.layers(self.embed(batch)))
        return cross_entropy(logits.flatten(0, 1), batch.flatten())
