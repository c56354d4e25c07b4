"""Tables of the page: rows of plain values -> HTML, and the same rows as CSV files."""

from __future__ import annotations

import csv
import html
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from magicbert.records import write_text_atomically


@dataclass(frozen=True)
class Mark:
    """HTML that is already escaped.

    Attributes:
        text: the HTML.
        is_number: aligned to the right, like the numbers beside it.
    """

    text: str
    is_number: bool = True


Value = str | int | float | None | Mark


def cell(value: Value) -> str:
    """Returns one value as HTML: counts with commas, other numbers with three decimals."""
    if isinstance(value, Mark):
        return value.text
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.3f}"
    return html.escape(value)


def table(head: Sequence[str], rows: Iterable[Sequence[Value]], *, caption: str = "") -> str:
    """Returns an HTML table; columns of numbers are aligned to the right."""
    body = [list(row) for row in rows]
    numeric = [all(is_number(row[i]) for row in body) for i in range(len(head))]
    classes = [' class="number"' if flag else "" for flag in numeric]
    parts = ['<div class="wide"><table>']
    if caption:
        parts.append(f"<caption>{html.escape(caption)}</caption>")
    heads = (f"<th{c}>{html.escape(name)}</th>" for c, name in zip(classes, head, strict=True))
    parts.append(f"<thead><tr>{''.join(heads)}</tr></thead><tbody>")
    for row in body:
        cells = (f"<td{c}>{cell(value)}</td>" for c, value in zip(classes, row, strict=True))
        parts.append(f"<tr>{''.join(cells)}</tr>")
    parts.append("</tbody></table></div>")
    return "".join(parts)


def is_number(value: Value) -> bool:
    """Says whether a value is set like a number; a missing one is."""
    return value.is_number if isinstance(value, Mark) else not isinstance(value, str)


def pairs(rows: Iterable[tuple[str, Value]]) -> str:
    """Returns names and values as a definition list in columns."""
    items = (f"<div><dt>{html.escape(n)}</dt><dd>{cell(v)}</dd></div>" for n, v in rows)
    return f'<dl class="pairs">{"".join(items)}</dl>'


def write_csv(file: Path, head: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Writes the numbers behind a plot; full precision, empty for what is missing."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(head)
    writer.writerows(rows)
    write_text_atomically(file, stream.getvalue())
