"""The rows of a study of rank fidelity, one JSON object per finished unit of work, as values."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from magicbert.errors import UserError
from magicbert.space import Architecture

BASELINE, DEFAULT, EQUAL_FLOPS = "spos", "default", "equal-flops"
Row = Mapping[str, Any]
Curve = tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class SupernetRow:
    """One trained supernet and what it says about the architectures of the table.

    Attributes:
        method: how paths were drawn and aligned: ``spos``, ``magic-t``, ...
        settings: ``default`` in the main comparison, else what they change (see ``settings``).
        seed: of the training.
        steps: optimizer steps.
        flops: of the whole training, the anchor and the scoring included.
        loss: mean inherited valid loss over the architectures.
        scores: inherited valid loss by architecture.
        curve: (step, valid loss) during the training.
        anchors: how often the anchor was replaced.
        interference: mean cosine of gradients of two random paths at shared operators; ``None`` =
            not taken.
        interference_one_layer: the same of paths that differ in one layer.
        seconds: of the training and scoring.
    """

    method: str
    settings: str
    seed: int
    steps: int
    flops: float
    loss: float
    scores: Mapping[Architecture, float]
    curve: Curve
    anchors: int
    interference: float | None
    interference_one_layer: float | None
    seconds: float

    @classmethod
    def of(cls, row: Row) -> SupernetRow:
        """Reads one JSON object of kind ``supernet``."""
        interference = row.get("interference") or {}
        return cls(
            method=row["method"],
            settings=row["settings"],
            seed=int(row["seed"]),
            steps=int(row["steps"]),
            flops=float(row["flops"]),
            loss=float(row["loss"]),
            scores={Architecture.parse(name): float(v) for name, v in row["scores"].items()},
            curve=tuple((float(step), float(loss)) for step, loss in row.get("curve") or ()),
            anchors=int(row.get("anchors") or 0),
            interference=interference.get("cosine"),
            interference_one_layer=interference.get("one_layer"),
            seconds=float(row.get("seconds") or 0.0),
        )

    @property
    def variant(self) -> tuple[str, str]:
        """Method and settings: what seeds are repetitions of."""
        return self.method, self.settings


def supernet_rows(rows: Iterable[Row]) -> tuple[SupernetRow, ...]:
    """Returns the supernets among the rows of a study, by method, settings and seed.

    Raises:
        UserError: one method has two supernets of one seed and one settings.
    """
    found = [SupernetRow.of(row) for row in rows if row["kind"] == "supernet"]
    found.sort(key=lambda r: (order_of(r.method), r.settings != DEFAULT, r.settings, r.seed))
    for former, row in itertools.pairwise(found):
        if (former.variant, former.seed) == (row.variant, row.seed):
            raise UserError(
                f"two rows of the study are {row.method}, {row.settings}, seed {row.seed}: "
                "keep one of them"
            )
    return tuple(found)


def order_of(method: str) -> tuple[int, str]:
    """Returns a sort key: uniform sampling first, then the methods as the paper introduces them."""
    known = (BASELINE, "magic-t", "magic-a", "magic-at")
    return (known.index(method) if method in known else len(known)), method


def read_study_rows(path: Path) -> list[dict[str, Any]]:
    """Reads a file of JSON lines.

    Raises:
        UserError: the file cannot be read, or a line is no row of a study.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read as JSON lines: {error}") from error
    rows = []
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
        except ValueError as error:
            raise UserError(f"{path}: line {number}: is not JSON: {error}") from error
        if not isinstance(row, dict) or "kind" not in row:
            raise UserError(f"{path}: line {number}: has no 'kind': not a row of a study")
        rows.append(row)
    return rows
