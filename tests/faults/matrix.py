"""The fault matrix: rows inject a fault and say what became of it; mutants keep them honest.

A row is a function ``(folder, is_thorough) -> Finding`` in ``tests/faults/rows/``; the thorough
size is what ``make faults`` runs, the other one runs in ``make test`` (tier P only). A mutant is
the same check on a product with its defence taken out: it must not pass.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

ROWS_FOLDER = Path(__file__).parent / "rows"


@dataclass(frozen=True)
class Finding:
    """What a check found.

    Attributes:
        passed: whether all that was expected held; ``None`` = could not be run here.
        figure: the measured figure, for the table.
        num_fired: how often the fault really took place.
        skipped: why it could not be run.
    """

    passed: bool | None
    figure: str
    num_fired: int
    skipped: str | None = None

    @classmethod
    def skip(cls, reason: str) -> Finding:
        """A check that this machine cannot run."""
        return cls(None, "", 0, reason)


Check = Callable[[Path, bool], Finding]


@dataclass
class Row:
    """One fault.

    Attributes:
        id: as in the fault matrix, such as ``A1``.
        fault: what is done.
        expected: what must hold then.
        tier: ``P`` = the small size also runs in ``make test``; ``N`` = ``make faults`` alone.
        check: the check.
        mutants: description -> the check on a product without its defence.
        peers: name of a peer -> a function that returns the peer's figure.
    """

    id: str
    fault: str
    expected: str
    tier: Literal["P", "N"]
    check: Check
    mutants: dict[str, Check] = field(default_factory=dict)
    peers: dict[str, Callable[[Path], str]] = field(default_factory=dict)


ROWS: dict[str, Row] = {}


def row(id: str, *, fault: str, expected: str, tier: Literal["P", "N"]) -> Callable[[Check], Check]:
    """Enters a check into the matrix."""

    def enter(check: Check) -> Check:
        assert id not in ROWS or ROWS[id].check.__qualname__ == check.__qualname__, f"{id} twice"
        ROWS[id] = Row(id, fault, expected, tier, check)
        return check

    return enter


def mutant(id: str, description: str) -> Callable[[Check], Check]:
    """Adds a mutant to a row that stands above it."""

    def enter(check: Check) -> Check:
        ROWS[id].mutants[description] = check
        return check

    return enter


def peer(id: str, name: str) -> Callable[[Callable[[Path], str]], Callable[[Path], str]]:
    """Adds the measurement of a peer to a row that stands above it."""

    def enter(measure: Callable[[Path], str]) -> Callable[[Path], str]:
        ROWS[id].peers[name] = measure
        return measure

    return enter


def load_rows() -> dict[str, Row]:
    """Imports every file of rows; returns the rows in the order of their ids."""
    tests = Path(__file__).parents[1]
    for folder in (Path(__file__).parent, tests, tests / "distributed"):
        if str(folder) not in sys.path:
            sys.path.insert(0, str(folder))
    for name in sorted(file.stem for file in ROWS_FOLDER.glob("*.py")):
        importlib.import_module(f"rows.{name}")
    return dict(sorted(ROWS.items(), key=lambda item: sort_key(item[0])))


def sort_key(id: str) -> tuple[str, int, str]:
    """Sorts ``A2`` before ``A10``."""
    digits = "".join(character for character in id[1:] if character.isdigit())
    return id[0], int(digits or 0), id


def select(rows: dict[str, Row], ids: list[str]) -> Iterator[Row]:
    """Yields the rows of some ids; ``["A"]`` means the whole group."""
    for id, entry in rows.items():
        if not ids or id in ids or id[0] in ids:
            yield entry
