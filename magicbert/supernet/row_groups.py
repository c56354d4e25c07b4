"""Rows of one batch grouped by the operator that a layer runs on them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

import torch
from torch import Tensor

from magicbert.space import Architecture


@dataclass(frozen=True, slots=True)
class RowGroups:
    """The rows of a batch at one layer; operators stand in the order of their first row.

    Attributes:
        names: the operators that have rows, each once.
        sizes: number of rows of each operator.
        order: ``[rows]`` int64, row numbers operator by operator, ascending within one.
        inverse: ``[rows]`` int64, where each row stands in ``order``.
    """

    names: tuple[str, ...]
    sizes: tuple[int, ...]
    order: Tensor
    inverse: Tensor

    def __iter__(self) -> Iterator[tuple[str, Tensor]]:
        """Yields each operator and the numbers of its rows."""
        return zip(self.names, torch.split(self.order, list(self.sizes)), strict=True)

    def restore(self, parts: Sequence[Tensor]) -> Tensor:
        """Returns the operators' outputs, one per name, in the order of the batch's rows."""
        return torch.cat(list(parts)).index_select(0, self.inverse)


def group_rows(
    architectures: Sequence[Architecture], device: torch.device
) -> tuple[RowGroups, ...]:
    """Returns the groups of every layer; all their indices reach the device in one copy.

    Args:
        architectures: one per row, all of one number of layers.
        device: of the indices.
    """
    layers = [_rows_by_name(names) for names in zip(*architectures, strict=True)]
    orders = torch.tensor([list(chain.from_iterable(rows.values())) for rows in layers])
    indices = torch.stack([orders, orders.argsort(1)], dim=1).to(device)
    return tuple(
        RowGroups(tuple(rows), tuple(map(len, rows.values())), order, inverse)
        for rows, (order, inverse) in zip(layers, indices, strict=True)
    )


def _rows_by_name(names: Sequence[str]) -> dict[str, list[int]]:
    rows: dict[str, list[int]] = {}
    for row, name in enumerate(names):
        rows.setdefault(name, []).append(row)
    return rows
