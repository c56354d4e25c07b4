"""The part of the report on rank fidelity: findings, plots, tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from magicbert.ranking.tables import tables
from magicbert.report.ranking_pictures import pictures
from magicbert.report.section import CsvTable, figure, paragraph
from magicbert.report.tables import table

Result = Mapping[str, Any]


def ranking_part(result: Result) -> tuple[list[str], list[CsvTable]]:
    """Returns HTML and the numbers of every plot.

    Args:
        result: of the analysis of ranking.
    """
    drawn = list(pictures(result))
    shown = list(tables(result))
    main = [figure(picture.svg, picture.caption) for picture in drawn[:3]]
    more = [figure(picture.svg, picture.caption) for picture in drawn[3:]]
    parts = [introduction(result), *missing_part(result["missing"]), findings_table(result), *main]
    parts += [table(t.head, t.rows, caption=t.title) for t in shown[1:5]]
    parts += more
    parts += [table(t.head, t.rows, caption=t.title) for t in (*shown[:1], *shown[5:])]
    return parts, [picture.numbers for picture in drawn]


def introduction(result: Result) -> str:
    """Returns what was held against what."""
    benchmark = result["table"]
    text = (
        f"Rank fidelity: {benchmark['num_architectures']} architectures of "
        f"{benchmark['num_layers']} layers, each trained alone, are held against the losses that "
        f"{len(result['rows'])} supernets give them with shared weights. Truth is the mean valid "
        f"loss at budget {result['budget']!r}; tau is Kendall's, intervals are 95%."
    )
    return paragraph(text)


def missing_part(gaps: Sequence[str]) -> list[str]:
    """Returns what the study has not measured, if anything."""
    return [paragraph(f"Not in this study: {'; '.join(gaps)}.")] if gaps else []


def findings_table(result: Result) -> str:
    """Returns what holds, what does not, and how sure that is."""
    rows = [(entry["topic"], entry["verdict"], entry["text"]) for entry in result["findings"]]
    caption = "What the intervals say, by fixed rules"
    return table(("claim", "verdict", "how sure"), rows, caption=caption)
