"""The ranks of a run and what they tell each other on the host."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist

from magicbert.errors import UserError


class AgreedError(UserError):
    """An error that every rank raises; only the first rank prints it."""


@dataclass(frozen=True)
class Ranks:
    """Small sums and agreements over gloo, which never waits for an accelerator.

    Attributes:
        rank: this process.
        num_ranks: number of processes.
        group: a gloo process group over all ranks.
    """

    rank: int
    num_ranks: int
    group: Any

    @classmethod
    def of_process_group(cls) -> Ranks:
        """Reads the default process group, which must stand."""
        return cls(dist.get_rank(), dist.get_world_size(), dist.new_group(backend="gloo"))

    @property
    def is_first(self) -> bool:
        """Whether this rank writes and reports."""
        return self.rank == 0

    def sum(self, values: Sequence[int]) -> list[int]:
        """Returns the sums over ranks of whole numbers."""
        message = torch.tensor(values, dtype=torch.int64)
        dist.all_reduce(message, group=self.group)
        return [int(value) for value in message.tolist()]

    def sum_floats(self, values: Sequence[float]) -> list[float]:
        """Returns the sums over ranks in double precision; bit-equal on every rank."""
        message = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(message, group=self.group)
        return [float(value) for value in message.tolist()]

    def from_first(self, value: int) -> int:
        """Returns the first rank's number on every rank."""
        return self.sum([value if self.is_first else 0])[0]

    def barrier(self) -> None:
        """Waits for every rank."""
        dist.barrier(group=self.group)

    def gather(self, value: Any) -> list[Any]:
        """Returns every rank's value, first rank first."""
        values: list[Any] = [None] * self.num_ranks
        dist.all_gather_object(values, value, group=self.group)
        return values

    def raise_together(self, problem: str | None) -> None:
        """Raises `AgreedError` on every rank if any of them has a problem."""
        problems = [(rank, text) for rank, text in enumerate(self.gather(problem)) if text]
        if problems:
            rank, text = problems[0]
            raise AgreedError(text if rank == 0 else f"rank {rank}: {text}")
