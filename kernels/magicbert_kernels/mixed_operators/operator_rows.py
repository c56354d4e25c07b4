"""Which operator each row of a batch takes, for rows that stand operator by operator."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class OperatorRows:
    """Rows sorted by operator; an operator may have none.

    Kernels read ``ids`` alone; libraries and plain PyTorch take the sizes and the ends.

    Attributes:
        sizes: number of rows of each operator.
        ids: ``[R]`` int64, operator of each row, ascending.
        ends: ``[operators]`` int64, number of rows up to and with each operator.
    """

    sizes: tuple[int, ...]
    ids: Tensor
    ends: Tensor

    @classmethod
    def of_sizes(cls, sizes: Sequence[int], device: torch.device) -> OperatorRows:
        """Returns the rows of operators with so many rows each."""
        numbers = torch.arange(len(sizes)).repeat_interleave(torch.tensor(list(sizes)))
        ends = torch.tensor(list(accumulate(sizes)))
        return cls(tuple(sizes), numbers.to(device), ends.to(device))

    @property
    def num_rows(self) -> int:
        """R."""
        return sum(self.sizes)

    def split(self, tensor: Tensor) -> tuple[Tensor, ...]:
        """Returns one view per operator of a tensor whose first axis is the rows."""
        return torch.split(tensor, list(self.sizes))
