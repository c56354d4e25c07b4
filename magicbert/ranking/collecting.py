"""From the rows of a study to those of its table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from magicbert.errors import UserError
from magicbert.ranking.table_row import Measure, TableRow
from magicbert.space import Architecture

Row = Mapping[str, Any]


def collect(rows: Iterable[Row]) -> tuple[TableRow, ...]:
    """Returns one table row per architecture that was trained alone.

    Args:
        rows: of every kind; those of supernets are left out.

    Raises:
        UserError: two rows disagree, or a downstream score has no architecture trained alone.
    """
    costs: dict[Architecture, tuple[int, float]] = {}
    values: dict[Architecture, dict[Measure, float]] = {}
    for row in rows:
        if row["kind"] not in ("alone", "downstream"):
            continue
        architecture = Architecture.parse(row["architecture"])
        known = values.setdefault(architecture, {})
        for measure, value in measured(row).items():
            if known.setdefault(measure, value) != value:
                raise UserError(f"{architecture}: two rows disagree on {measure}")
        if row["kind"] == "alone":
            cost = row["parameters"], float(row["flops"])
            if costs.setdefault(architecture, cost) != cost:
                raise UserError(f"{architecture}: two rows disagree on parameters or FLOPs")
    lonely = [str(architecture) for architecture in values if architecture not in costs]
    if lonely:
        raise UserError(f"scores of architectures that were not trained alone: {lonely[0]}")
    return tuple(TableRow(name, *costs[name], found) for name, found in values.items())


def measured(row: Row) -> dict[Measure, float]:
    """Returns what one row of a study adds to the table."""
    seed = row["seed"]
    if row["kind"] == "downstream":
        return {Measure("score", row["task"], seed): float(row["score"])}
    return {Measure(kind, row["budget"], seed): float(row[kind]) for kind in ("loss", "accuracy")}
