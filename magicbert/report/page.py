"""The page: sections in the order of the chain, each drawn from the records of its stage."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from magicbert.records import write_text_atomically
from magicbert.report import (
    analysis_section,
    comparison_section,
    provenance,
    results,
    search_section,
    training_section,
)
from magicbert.report.reading import RunRecords
from magicbert.report.section import CsvTable, Section
from magicbert.report.style import CSS
from magicbert.space.cost import CostModel
from magicbert.supernet.coverage import Coverage


@dataclass(frozen=True)
class Page:
    """The finished page and the numbers behind its plots."""

    html: str
    csv_tables: tuple[CsvTable, ...]

    def write(self, file: Path, csv_folder: Path) -> None:
        """Writes the page, and each table as one CSV file."""
        for table in self.csv_tables:
            table.write(csv_folder)
        write_text_atomically(file, self.html)


def build_page(
    run: RunRecords,
    *,
    title: str = "",
    costs: CostModel | None = None,
    coverage: Mapping[str, Coverage] | None = None,
    sampler: Mapping[str, Any] | None = None,
) -> Page:
    """Builds the page of a run.

    Args:
        run: records of all stages.
        title: heading; empty = the run's name.
        costs: cost of each operator, for the cost table.
        coverage: what each pretraining trained how often, by the name of its folder.
        sampler: analysis of the walk, of a run that has no record of one.
    """
    sections = [
        training_section.data_section(run),
        training_section.pretraining_section(run, coverage or {}),
        analysis_section.analysis_section(run, sampler),
        search_section.search_section(run),
        search_section.cost_section(run, costs),
        training_section.retraining_section(run),
        results.finetuning_section(run),
        provenance.provenance_section(run),
    ]
    sections[-1:-1] = (
        comparison_section.comparison_section(record.result or {})
        for record in run.finished("compare")
    )
    text = standing_page(title or run.name, sections, head=results.headline(run))
    return Page(text, tuple(table for section in sections for table in section.csv_tables))


def standing_page(title: str, sections: Sequence[Section], *, head: str = "") -> str:
    """Returns a page that needs no other file; ``head`` is HTML between links and sections."""
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html.escape(title)} – magicbert</title><style>{CSS}</style></head>"
        f"<body>{_body(title, head, sections)}</body></html>\n"
    )


def _body(title: str, head: str, sections: Sequence[Section]) -> str:
    links = (f'<a href="#{part.anchor}">{html.escape(part.title)}</a>' for part in sections)
    return "\n".join(
        [
            f"<header><h1>{html.escape(title)}</h1>",
            '<p class="lede">One-shot architecture search for BERT with magicbert</p></header>',
            f"<nav>{''.join(links)}</nav>",
            head,
            *(part.to_html() for part in sections),
        ]
    )
