"""The tabular benchmark: what each architecture of a set costs and reaches when trained alone.

A table is trained once and then looked up: rankings are held against it, and a search can ask it
for losses instead of training.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from magicbert.errors import UserError
from magicbert.ranking.collecting import collect
from magicbert.ranking.table_file import read_rows, write_rows
from magicbert.ranking.table_row import KINDS, Measure, TableRow
from magicbert.space import Architecture


@dataclass(frozen=True)
class Table:
    """Architectures with their costs and what was measured, in the order of their names.

    Attributes:
        rows: one per architecture.
        source: what messages call the table: its file.
    """

    rows: tuple[TableRow, ...]
    source: str = field(default="the table", compare=False)

    def __post_init__(self) -> None:
        ordered = sorted(self.rows, key=lambda row: str(row.architecture))
        object.__setattr__(self, "rows", tuple(ordered))
        if len(self._places) < len(self.rows):
            raise UserError(f"{self.source}: an architecture stands in it twice")

    @classmethod
    def from_rows(cls, rows: Iterable[Mapping[str, Any]]) -> Table:
        """Collects the rows of a study (JSON objects): ``alone`` and ``downstream`` count.

        Raises:
            UserError: two rows disagree, or a downstream score has no architecture trained alone.
        """
        return cls(collect(rows), "the rows of the study")

    @classmethod
    def read(cls, path: Path) -> Table:
        """Reads a CSV file that `write` wrote.

        Raises:
            UserError: the file is missing, or a cell is not what its column says.
        """
        return cls(read_rows(path), str(path))

    def write(self, path: Path) -> None:
        """Writes a CSV file; figures read back to the same bits."""
        write_rows(path, self.rows)

    @cached_property
    def _places(self) -> dict[Architecture, int]:
        return {row.architecture: place for place, row in enumerate(self.rows)}

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[TableRow]:
        return iter(self.rows)

    def __contains__(self, architecture: object) -> bool:
        return architecture in self._places

    def __getitem__(self, architecture: Architecture) -> TableRow:
        """Returns the row of an architecture.

        Raises:
            UserError: it is not in the table.
        """
        if architecture not in self._places:
            raise UserError(
                f"{self.source} has no row for {architecture}; it holds {len(self):,} "
                "architectures: search within these"
            )
        return self.rows[self._places[architecture]]

    @property
    def architectures(self) -> tuple[Architecture, ...]:
        """All architectures, in the order of the rows."""
        return tuple(row.architecture for row in self.rows)

    @cached_property
    def measures(self) -> tuple[Measure, ...]:
        """Every measure that at least one row has, in the order of the columns."""
        found = {measure for row in self.rows for measure in row.values}
        return tuple(sorted(found, key=lambda m: (KINDS.index(m.kind), m.name, m.seed)))

    def names(self, kind: str) -> tuple[str, ...]:
        """Returns the budgets of the losses, or the tasks of the scores, best covered first."""
        names = dict.fromkeys(m.name for m in self.measures if m.kind == kind)
        return tuple(sorted(names, key=lambda name: -len(self.measured(kind, name))))

    def measured(self, kind: str, name: str) -> tuple[TableRow, ...]:
        """Returns the rows in which something of that kind and name was measured."""
        return tuple(row for row in self.rows if row.mean(kind, name) is not None)

    def seeds(self, kind: str, name: str) -> tuple[int, ...]:
        """Returns the seeds of one budget or task that at least one row has."""
        return tuple(m.seed for m in self.measures if (m.kind, m.name) == (kind, name))

    def matrix(self, kind: str, name: str) -> tuple[tuple[TableRow, ...], NDArray[np.float64]]:
        """Returns the rows that were measured with every seed, and ``[rows, seeds]`` values."""
        seeds = self.seeds(kind, name)
        rows = tuple(row for row in self.rows if len(row.by_seed(kind, name)) == len(seeds))
        values = [list(row.by_seed(kind, name).values()) for row in rows]
        return rows, np.array(values, dtype=np.float64).reshape(len(rows), len(seeds))

    def loss(self, architecture: Architecture, budget: str = "") -> float:
        """Returns the mean loss of an architecture over the seeds of one budget.

        Args:
            architecture: one of the table's.
            budget: name; empty = the budget that covers the most architectures.

        Raises:
            UserError: the architecture, or its loss at that budget, is not in the table.
        """
        return self._mean("loss", architecture, budget)

    def accuracy(self, architecture: Architecture, budget: str = "") -> float:
        """Returns the mean accuracy on masked tokens; arguments and errors as for `loss`."""
        return self._mean("accuracy", architecture, budget)

    def _mean(self, kind: str, architecture: Architecture, budget: str) -> float:
        names = self.names(kind)
        name = budget or (names[0] if names else "")
        value = self[architecture].mean(kind, name)
        if value is None:
            known = ", ".join(names) or "none"
            raise UserError(
                f"{self.source}: no {kind} of {architecture} at budget {name!r}; budgets with one "
                f"for some architectures: {known}"
            )
        return value
