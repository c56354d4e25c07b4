"""The models with the least sum of block losses under a budget, from the blocks' tables.

The sum stands in for a model's own loss (NAS-BERT 3.3). Of N tables of 100 paths each there are
100^N models. The blocks are split into two halves, each with all combinations of its blocks sorted
by loss; for each one on the left, those on the right are looked at in ascending order, and only
while the sum can still be among the best. The result is exact.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
import numpy.typing as npt

from magicbert.compression.block_table import BlockRow
from magicbert.errors import UserError
from magicbert.space import Cost, Limits
from magicbert.space.blocks import width_of_name

Numbers = npt.NDArray[np.int64]
Reals = npt.NDArray[np.float64]
LARGEST_HALF = 4_000_000
NO_WIDTH = -1


@dataclass(frozen=True)
class Combination:
    """One path of each block.

    Attributes:
        rows: the number of the row in each block's table.
        loss: sum of the blocks' dev losses.
        cost: of the whole encoder.
    """

    rows: tuple[int, ...]
    loss: float
    cost: Cost


@dataclass(frozen=True)
class Half:
    """Combinations of some neighbouring blocks; every array has one entry per combination.

    Attributes:
        rows: ``[n, blocks]``, row numbers in the tables.
        loss: sum of the blocks' losses.
        parameters: of the operators and of the maps between these blocks.
        flops: the same.
        latency: the same, in nanoseconds.
        first: the first block's width, as its place among all widths.
        last: the last block's.
    """

    rows: Numbers
    loss: Reals
    parameters: Numbers
    flops: Reals
    latency: Numbers
    first: Numbers
    last: Numbers

    def by_loss(self) -> Half:
        """Returns the combinations by ascending loss; of equals, by their rows."""
        order = np.lexsort((*self.rows.T[::-1], self.loss))
        return Half(
            rows=self.rows[order],
            loss=self.loss[order],
            parameters=self.parameters[order],
            flops=self.flops[order],
            latency=self.latency[order],
            first=self.first[order],
            last=self.last[order],
        )


@dataclass(frozen=True)
class Borders:
    """What stands between blocks of two widths.

    Attributes:
        widths: all widths, ascending.
        parameters: ``[widths + 1, widths + 1]``; the last row and column, `NO_WIDTH`, are zero.
        flops: the same.
        latency: the same, in nanoseconds.
    """

    widths: tuple[int, ...]
    parameters: Numbers
    flops: Reals
    latency: Numbers

    @classmethod
    def of(cls, widths: Sequence[int], border: Callable[[int, int], Cost]) -> Borders:
        """Asks for every cost once."""
        size = len(widths)
        parameters = np.zeros((size + 1, size + 1), dtype=np.int64)
        flops = np.zeros((size + 1, size + 1))
        latency = np.zeros((size + 1, size + 1), dtype=np.int64)
        for row, before in enumerate(widths):
            for column, after in enumerate(widths):
                cost = border(before, after)
                parameters[row, column], flops[row, column] = cost.parameters, cost.flops
                latency[row, column] = cost.latency_ns
        return cls(tuple(widths), parameters, flops, latency)


class Selection:
    """Chooses models from the tables of all blocks.

    Args:
        tables: the rows of each block, first block first; none empty.
        entry: cost of what stands ahead of a first block of some width (tables, projection).
        border: cost of the map from one width to another; nothing where they are equal.
        limits: what a model must keep.
        leave: cost of what stands behind a last block of some width.

    Raises:
        UserError: there are more combinations than can be held.
    """

    def __init__(
        self,
        tables: Sequence[Sequence[BlockRow]],
        entry: Callable[[int], Cost],
        border: Callable[[int, int], Cost],
        limits: Limits,
        leave: Callable[[int], Cost] = lambda width: Cost(),
    ) -> None:
        self.limits = limits
        widths = sorted({width_of(row) for table in tables for row in table})
        self.borders = Borders.of(widths, border)
        costs = [[Cost(row.parameters, row.flops, row.latency_ns) for row in t] for t in tables]
        for at, ends in ((0, entry), (-1, leave)):
            known = {width: ends(width) for width in widths}
            pairs = zip(costs[at], tables[at], strict=True)
            costs[at] = [cost + known[width_of(row)] for cost, row in pairs]
        middle = (len(tables) + 1) // 2
        self.left = self._half(tables[:middle], costs[:middle]).by_loss()
        self.right = self._half(tables[middle:], costs[middle:]).by_loss()

    def best(self, number: int) -> list[Combination]:
        """Returns the combinations with the least loss that keep the limits, best first.

        Args:
            number: how many; fewer if there are fewer.

        Raises:
            UserError: none keeps them; the message says what the smallest costs.
        """
        found: list[Combination] = []
        for index in range(len(self.left.loss)):
            worst = found[-1].loss if len(found) == number else np.inf
            if self.left.loss[index] + self.right.loss[0] > worst:
                break
            completed = self._completions(index, worst, number)
            if completed:
                found = sorted([*found, *completed], key=lambda one: (one.loss, one.rows))[:number]
        if not found:
            raise self._nothing()
        return found

    def _completions(self, index: int, worst: float, number: int) -> list[Combination]:
        """Returns the best models that begin with a left half and are no worse than ``worst``."""
        left, right = self.left, self.right
        loss = left.loss[index] + right.loss
        end = int(np.searchsorted(loss, worst, side="right"))
        last = left.last[index]
        parameters = self.borders.parameters[last, right.first[:end]] + right.parameters[:end]
        parameters += left.parameters[index]
        flops = self.borders.flops[last, right.first[:end]] + right.flops[:end] + left.flops[index]
        latency = self.borders.latency[last, right.first[:end]] + right.latency[:end]
        latency += left.latency[index]
        rows = (*left.rows[index].tolist(),)
        return [
            Combination(
                (*rows, *right.rows[at].tolist()),
                float(loss[at]),
                Cost(int(parameters[at]), float(flops[at]), int(latency[at])),
            )
            for at in np.flatnonzero(self._admitted(parameters, flops, latency))[:number]
        ]

    def _admitted(
        self, parameters: Numbers, flops: Reals, latency: Numbers
    ) -> npt.NDArray[np.bool_]:
        """Returns which costs keep the limits."""
        limits = self.limits
        keeps: npt.NDArray[np.bool_] = parameters >= limits.min_parameters
        if limits.max_parameters:
            keeps &= parameters <= limits.max_parameters
        if limits.max_flops:
            keeps &= flops <= limits.max_flops
        if limits.max_latency_ms:
            keeps &= latency / 1e6 <= limits.max_latency_ms
        return keeps

    def _half(self, tables: Sequence[Sequence[BlockRow]], costs: Sequence[Sequence[Cost]]) -> Half:
        """Returns all combinations of some blocks; of no blocks, the empty one."""
        size = prod(len(table) for table in tables)
        if size > LARGEST_HALF:
            raise UserError(
                f"{len(tables)} tables have {size:,} combinations, which is more than "
                f"{LARGEST_HALF:,}: train the blocks with a smaller training.keep_per_bin"
            )
        zeros, no_width = np.zeros(1, dtype=np.int64), np.full(1, NO_WIDTH)
        half = Half(np.zeros((1, 0), dtype=np.int64), np.zeros(1), zeros, np.zeros(1), zeros,
                    no_width, no_width)  # fmt: skip
        for table, own in zip(tables, costs, strict=True):
            half = self._followed_by(half, table, own)
        return half

    def _followed_by(self, half: Half, table: Sequence[BlockRow], costs: Sequence[Cost]) -> Half:
        """Returns every combination with every row of one more block behind it."""
        width = np.array([self.borders.widths.index(width_of(row)) for row in table])
        parameters = np.array([cost.parameters for cost in costs])
        flops = np.array([cost.flops for cost in costs])
        latency = np.array([cost.latency_ns for cost in costs])
        loss = np.array([row.loss for row in table])
        n, m = len(half.loss), len(table)
        old, new = np.repeat(np.arange(n), m), np.tile(np.arange(m), n)
        last, here = half.last[old], width[new]
        first = half.first[old]
        return Half(
            rows=np.column_stack([half.rows[old], new]),
            loss=half.loss[old] + loss[new],
            parameters=half.parameters[old] + parameters[new] + self.borders.parameters[last, here],
            flops=half.flops[old] + flops[new] + self.borders.flops[last, here],
            latency=half.latency[old] + latency[new] + self.borders.latency[last, here],
            first=np.where(first == NO_WIDTH, here, first),
            last=here,
        )

    def _nothing(self) -> UserError:
        """Says that nothing keeps the limits, and what there is."""
        fewest, most = np.inf, 0.0
        fewest_flops = shortest = np.inf
        for index in range(len(self.left.loss)):
            last = self.left.last[index]
            parameters = self.borders.parameters[last, self.right.first] + self.right.parameters
            flops = self.borders.flops[last, self.right.first] + self.right.flops
            fewest = min(fewest, self.left.parameters[index] + parameters.min())
            most = max(most, self.left.parameters[index] + parameters.max())
            fewest_flops = min(fewest_flops, self.left.flops[index] + flops.min())
            latency = self.borders.latency[last, self.right.first] + self.right.latency
            shortest = min(shortest, self.left.latency[index] + latency.min())
        fastest = f", and take at least {shortest / 1e6:.4g} ms" if shortest else ""
        return UserError(
            f"no combination of the blocks' paths keeps the limits ({self.limits}); they have "
            f"{int(fewest):,} to {int(most):,} parameters and at least {fewest_flops:.4g} FLOPs"
            f"{fastest}: "
            "loosen the limits, or train blocks of other widths"
        )


def width_of(row: BlockRow) -> int:
    """Returns the width of a path."""
    return width_of_name(row.path[0])
