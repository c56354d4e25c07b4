"""Rows of one batch grouped by the operator that a layer runs on them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, chain

import torch
from torch import Tensor

from magicbert.space import Architecture

FamilyOf = Callable[[int, str], str]


@dataclass(frozen=True, slots=True)
class RowGroup:
    """The rows of a layer that operators of one family take.

    Attributes:
        names: the operators, each once; most families have one.
        sizes: number of rows of each operator.
        rows: ``[n]`` int64, row numbers operator by operator, ascending within one.
        operator_ids: ``[n]`` int64, index into ``names`` of each of these rows.
        ends: ``[len(names)]`` int64, number of rows up to and with each operator.
    """

    names: tuple[str, ...]
    sizes: tuple[int, ...]
    rows: Tensor
    operator_ids: Tensor
    ends: Tensor


@dataclass(frozen=True, slots=True)
class LayerRows:
    """All rows of a batch at one layer.

    Attributes:
        groups: one per family, in the order of their first rows.
        inverse: ``[rows]`` int64, where each row stands in the groups' rows put together.
    """

    groups: tuple[RowGroup, ...]
    inverse: Tensor

    @property
    def only_operator(self) -> str | None:
        """The operator that all rows take; ``None`` if there are several."""
        names = self.groups[0].names
        return names[0] if len(self.groups) == len(names) == 1 else None

    def restore(self, parts: Sequence[Tensor]) -> Tensor:
        """Returns the groups' outputs, in their order, as rows in the order of the batch."""
        return torch.cat(list(parts)).index_select(0, self.inverse)


def group_rows(
    architectures: Sequence[Architecture],
    device: torch.device,
    family_of: FamilyOf = lambda layer, name: name,
) -> tuple[LayerRows, ...]:
    """Returns the groups of every layer; all their indices reach the device in one copy.

    Args:
        architectures: one per row, at least one, all of one number of layers.
        device: of the indices.
        family_of: ``(layer, operator) -> family``.
    """
    layers = [
        _families(names, {name: family_of(layer, name) for name in dict.fromkeys(names)})
        for layer, names in enumerate(zip(*architectures, strict=True))
    ]
    indices = torch.tensor([_indices(families) for families in layers]).to(device)
    return tuple(
        _layer_rows(families, table) for families, table in zip(layers, indices, strict=True)
    )


# Of one layer: family -> operator -> its rows.
_Families = dict[str, dict[str, list[int]]]


def _families(names: Sequence[str], families: Mapping[str, str]) -> _Families:
    found: _Families = {}
    for row, name in enumerate(names):
        found.setdefault(families[name], {}).setdefault(name, []).append(row)
    return found


def _indices(families: _Families) -> list[list[int]]:
    """Returns four lists of one length: rows, their operators, ends (0 after them), inverse."""
    rows: list[int] = []
    operator_ids: list[int] = []
    ends: list[int] = []
    for operators in families.values():
        sizes = [len(own) for own in operators.values()]
        rows.extend(chain.from_iterable(operators.values()))
        operator_ids.extend(index for index, size in enumerate(sizes) for _ in range(size))
        ends.extend([*accumulate(sizes), *[0] * (sum(sizes) - len(sizes))])
    inverse = sorted(range(len(rows)), key=rows.__getitem__)
    return [rows, operator_ids, ends, inverse]


def _layer_rows(families: _Families, table: Tensor) -> LayerRows:
    groups, start = [], 0
    for operators in families.values():
        sizes = tuple(len(own) for own in operators.values())
        here = table[:, start : start + sum(sizes)]
        groups.append(RowGroup(tuple(operators), sizes, here[0], here[1], here[2, : len(sizes)]))
        start += sum(sizes)
    return LayerRows(tuple(groups), table[3])
