"""Batches on which a block learns a teacher's step from one hidden state to a later one.

Shapes: B rows, S positions, T width of the teacher.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from magicbert.bert.modeling.segments import Segments
from magicbert.bert.teacher import Teacher
from magicbert.data.batch import TokenBatch
from magicbert.data.source import TokenSource


@dataclass(frozen=True)
class BlockBatch:
    """What a block is trained on, on its device.

    Attributes:
        inputs: the teacher's hidden state ahead of the block, ``[B, S, T]``.
        targets: its hidden state after the block; same shape but for the width.
        segments: of the rows.
        num_tokens: positions that are not padding.
    """

    inputs: Tensor
    targets: Tensor
    segments: Segments
    num_tokens: int

    def to(self, device: torch.device) -> BlockBatch:
        """Returns itself: it was made where it is used."""
        return self


@dataclass(frozen=True)
class TaughtBatch:
    """Rows whose hidden states the teacher computes once they are on the device.

    Attributes:
        batch: the rows.
        teacher: who computes.
        ends: layers of the teacher that the block lies between, 0 = its embeddings.
    """

    batch: TokenBatch
    teacher: Teacher
    ends: tuple[int, int]

    @property
    def num_tokens(self) -> int:
        """Positions that are not padding."""
        assert self.batch.layout is not None
        return self.batch.layout.num_tokens

    def to(self, device: torch.device) -> BlockBatch:
        """Runs the teacher on the device."""
        states, segments = self.teacher.states(self.batch.to(device), self.ends)
        return BlockBatch(states[self.ends[0]], states[self.ends[1]], segments, self.num_tokens)


class TaughtSource:
    """Batches of prepared data with the teacher beside them.

    Args:
        source: the rows; every block sees the same.
        teacher: who computes inputs and targets.
        ends: layers of the teacher that the block lies between.
    """

    def __init__(self, source: TokenSource, teacher: Teacher, ends: tuple[int, int]) -> None:
        self.source, self.teacher, self.ends = source, teacher, ends

    def step_batches(self, step: int, rank: int, num_ranks: int) -> list[TaughtBatch]:
        """Returns the micro-batches of one optimizer step."""
        batches = self.source.step_batches(step, rank, num_ranks)
        return [TaughtBatch(batch, self.teacher, self.ends) for batch in batches]

    def dev_batches(self, num_batches: int) -> list[TaughtBatch]:
        """Returns the first fixed micro-batches of the held-out split."""
        batches = self.source.dev_batches(num_batches)
        return [TaughtBatch(batch, self.teacher, self.ends) for batch in batches]
