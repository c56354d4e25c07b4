"""The tabular benchmark as a CSV file, every cell checked when it is read.

Columns: ``architecture`` (canonical string), ``parameters`` (trained values), ``flops`` (one
forward of one full row), then one per measure, ``loss/BUDGET/SEED``, ``accuracy/BUDGET/SEED`` and
``score/TASK/SEED``. An empty cell was not measured.
"""

from __future__ import annotations

import csv
import io
import math
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from magicbert.errors import UserError
from magicbert.ranking.table_row import KINDS, Measure, TableRow
from magicbert.records import write_text_atomically
from magicbert.space import Architecture

FIXED = ("architecture", "parameters", "flops")
COLUMN = re.compile(rf"({'|'.join(KINDS)})/([A-Za-z0-9][A-Za-z0-9_.-]*)/(\d{{1,10}})")
RANGES = {"loss": (0.0, math.inf), "accuracy": (0.0, 1.0), "score": (-math.inf, math.inf)}


@dataclass(frozen=True)
class Place:
    """A cell, for messages.

    Attributes:
        path: the file.
        line: counted from 1; the head is line 1.
        column: name of the column.
        text: the cell.
    """

    path: Path
    line: int
    column: str
    text: str

    def refuse(self, wanted: str) -> NoReturn:
        """Raises the message that this cell is not what is wanted."""
        raise UserError(
            f"{self.path}: line {self.line}, column {self.column}: {self.text!r} is not {wanted}"
        )


def read_rows(path: Path) -> tuple[TableRow, ...]:
    """Reads a whole file.

    Raises:
        UserError: the file cannot be read, a column is missing, unknown or doubled, a cell is not
            what its column says, or an architecture stands there twice.
    """
    try:
        lines = list(csv.reader(io.StringIO(text_of(path)), strict=True))
    except csv.Error as error:
        raise UserError(f"{path}: cannot be read as a CSV file: {error}") from error
    if not lines:
        raise UserError(f"{path}: is empty; expected columns {', '.join(FIXED)}, loss/BUDGET/SEED")
    measures = measures_of(path, lines[0])
    rows: dict[Architecture, TableRow] = {}
    for number, cells in enumerate(lines[1:], start=2):
        if len(cells) != len(lines[0]):
            raise UserError(
                f"{path}: line {number}: {len(cells)} cells, but there are {len(lines[0])} columns"
            )
        row = row_of(path, number, cells, measures)
        if row.architecture in rows:
            Place(path, number, FIXED[0], cells[0]).refuse("new: it stands above already")
        rows[row.architecture] = row
    return tuple(rows.values())


def text_of(path: Path) -> str:
    """Returns the text of a file."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file; expected a table of architectures") from error
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read as a CSV file: {error}") from error


def measures_of(path: Path, head: Sequence[str]) -> list[Measure]:
    """Returns what the columns after the fixed ones hold."""
    missing = [name for name in FIXED if name not in head]
    if missing or tuple(head[: len(FIXED)]) != FIXED:
        raise UserError(
            f"{path}: line 1: must begin with {', '.join(FIXED)}; got {', '.join(head)}"
        )
    doubled = [name for name, count in Counter(head).items() if count > 1]
    if doubled:
        raise UserError(f"{path}: line 1: columns that stand there twice: {', '.join(doubled)}")
    found = []
    for name in head[len(FIXED) :]:
        match = COLUMN.fullmatch(name)
        if match is None:
            wanted = "a column: expected " + ", ".join(f"{kind}/NAME/SEED" for kind in KINDS)
            Place(path, 1, name, name).refuse(wanted)
        found.append(Measure(match[1], match[2], int(match[3])))
    return found


def row_of(path: Path, line: int, cells: Sequence[str], measures: Sequence[Measure]) -> TableRow:
    """Reads one line."""
    places = [
        Place(path, line, name, cell)
        for name, cell in zip((*FIXED, *map(str, measures)), cells, strict=True)
    ]
    values = {
        measure: number(place, float, *RANGES[measure.kind])
        for measure, place in zip(measures, places[len(FIXED) :], strict=True)
        if place.text
    }
    try:
        architecture = Architecture.parse(cells[0])
    except UserError as error:
        places[0].refuse(f"an architecture: {error}")
    parameters = number(places[1], int, 0, math.inf)
    return TableRow(architecture, int(parameters), number(places[2], float, 0, math.inf), values)


def number(place: Place, kind: Callable[[str], float], low: float, high: float) -> float:
    """Returns a cell as a number within bounds."""
    noun = "a whole number" if kind is int else "a number"
    try:
        value = kind(place.text)
    except ValueError:
        place.refuse(noun)
    if not math.isfinite(value) or not low <= value <= high:
        inside = f" from {low:g} to {high:g}" if math.isfinite(high) else f" of at least {low:g}"
        place.refuse(f"a finite number{inside if math.isfinite(low) else ''}")
    return value


def write_rows(path: Path, rows: Sequence[TableRow]) -> None:
    """Writes rows in their order, columns in the order of kind, name and seed."""
    found = {measure for row in rows for measure in row.values}
    measures = sorted(found, key=lambda m: (KINDS.index(m.kind), m.name, m.seed))
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow([*FIXED, *map(str, measures)])
    for row in rows:
        cells = [row.values.get(measure, "") for measure in measures]
        writer.writerow([str(row.architecture), row.parameters, repr(float(row.flops)), *cells])
    write_text_atomically(path, stream.getvalue())
