"""One section of the page: its HTML, and the numbers behind its plots."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from magicbert.report.tables import write_csv


@dataclass(frozen=True)
class CsvTable:
    """The numbers of one plot.

    Attributes:
        name: file name without ending.
        head: names of the columns.
        rows: plain values.
    """

    name: str
    head: tuple[str, ...]
    rows: tuple[Sequence[Any], ...]

    def write(self, folder: Path) -> None:
        """Writes ``<folder>/<name>.csv``."""
        write_csv(folder / f"{self.name}.csv", self.head, self.rows)


@dataclass(frozen=True)
class Section:
    """A heading and what stands below it.

    Attributes:
        anchor: id of the heading.
        title: heading.
        parts: HTML; none = the stage has not run, and the page says so.
        csv_tables: numbers of the plots in it.
    """

    anchor: str
    title: str
    parts: tuple[str, ...] = ()
    csv_tables: tuple[CsvTable, ...] = ()

    def to_html(self) -> str:
        """Returns the section as HTML."""
        body = "\n".join(self.parts) or '<p class="not-run">Not run.</p>'
        title = html.escape(self.title)
        return f'<section><h2 id="{self.anchor}">{title}</h2>\n{body}</section>'


def figure(svg: str, caption: str) -> str:
    """Returns a drawing with its caption, which is plain text."""
    return f"<figure>{svg}<figcaption>{html.escape(caption)}</figcaption></figure>"


def paragraph(text: str) -> str:
    """Returns plain text as a paragraph."""
    return f"<p>{html.escape(text)}</p>"
