"""Models side by side, as a part of a page and as CSV."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from magicbert.report.section import CsvTable, Section, paragraph
from magicbert.report.tables import table

CSV_HEAD = ("model", "kind", "quantity", "value", "low", "high", "count", "unit", "missing")
Row = Mapping[str, Any]


def comparison_section(payload: Row) -> Section:
    """Returns the section of a comparison's record."""
    shown = payload["table"]
    reasons = [f"[{number}] {text}" for number, text in enumerate(shown["reasons"], start=1)]
    notes = [note for row in payload["rows"] for note in row["notes"]]
    parts = [table(shown["head"], shown["rows"]), paragraph(shown["caption"])]
    parts += [paragraph(text) for text in (*reasons, *notes)]
    rows = tuple(line for row in payload["rows"] for line in csv_lines(row))
    return Section(
        "comparison", "Comparison", tuple(parts), (CsvTable("comparison", CSV_HEAD, rows),)
    )


def csv_lines(row: Row) -> Iterator[tuple[Any, ...]]:
    """Yields one line per quantity: full precision, an empty value where it is missing."""
    who, missing = (row["name"], row["kind"]), row["missing"]
    for quantity, unit in (("parameters", "values"), ("flops", "FLOPs of a row")):
        value = row[quantity]
        yield (*who, quantity, value, None, None, None, unit, missing.get(quantity, ""))
    for form, times in row["latency"].items():
        name = f"latency, {form}"
        for clock in ("wall", "cpu"):
            span = (times or {}).get(clock, {})
            figures = (span.get("median"), span.get("low"), span.get("high"))
            yield (*who, f"{name}, {clock}", *figures, None, "ms", missing.get(name, ""))
    for score in row["scores"]:
        ends = (score["median"], score["minimum"], score["maximum"])
        name = f"{score['task']}, {score['metric']}"
        yield (*who, name, *ends, score["num_seeds"], "share", "")
    if not row["scores"]:
        yield (*who, "scores", None, None, None, None, "share", missing.get("scores", ""))
