"""The page of a study of rank fidelity as Markdown, from its result alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from magicbert.markdown import markdown_table
from magicbert.ranking.tables import TextTable, tables
from magicbert.report.ranking_pictures import Picture

Result = Mapping[str, Any]

METHOD = """\
- **Truth** is the mean valid loss of each architecture trained alone, over its seeds. A supernet's
  *score* is the loss of the same fixed dev batches with inherited weights. **tau** is Kendall's
  tau-b between the two; 1 is the same order, 0 none.
- **Intervals** are 95%. Those of methods and differences are Student's over supernet seeds (the
  bootstrap over seeds stands beside it and is too narrow for few of them); those of baselines,
  ceiling and downstream scores are bootstrap intervals over architectures.
- **Differences** are paired: the same seed draws the same data and initial weights. *holds* and
  *does not hold* mean that the interval lies on one side of 0; *no difference* that it holds 0, is
  no wider than ±0.05 and comes from at least three seeds; everything else is *undecided*. Holm's
  correction covers the methods of the main comparison, and the other settings that vary one
  method's default ones, or others of its settings; settings against uniform sampling are
  exploratory and are not corrected.
- **tau, same operators** compares only architectures that hold the same operators in other places:
  what a count of operators cannot rank.
- **The noise ceiling** is the tau between two seeds of training alone. What a perfect ranking
  could reach against the mean of the seeds is derived from it (normal model, Spearman-Brown); it
  is no measurement. Similar architectures share the luck of a seed (its initial weights), so
  between few seeds tau within equal operators may fall below 0; the interval does not hold that.
- **Other budgets** of training alone are another truth: the same supernets, held against it.
- **Mean scores** of a method's supernets have less of the noise between their seeds. What they
  still get wrong, all of them do; the worth of an operator (a linear fit to the numbers of the
  operators) shows where."""


def page(result: Result, origin: Result, drawn: Sequence[Picture], stem: str) -> str:
    """Returns the generated part of the page.

    Args:
        result: of the study.
        origin: ``command``, ``commit`` and ``machine``.
        drawn: the plots, in their order.
        stem: beginning of the names of files beside the page.
    """
    return "\n\n".join(blocks(result, origin, drawn, stem))


def blocks(result: Result, origin: Result, drawn: Sequence[Picture], stem: str) -> Iterator[str]:
    """Yields the paragraphs, tables and pictures of the page."""
    yield "## What holds, what does not, and how sure we are"
    yield "Every verdict follows from an interval by the rules below; none is written by hand."
    rows = tuple((e["topic"], f"**{e['verdict']}**", e["text"]) for e in result["findings"])
    yield markdown_table(("claim", "verdict", "how sure"), rows)
    if result["missing"]:
        yield "Not in these rows: " + "; ".join(result["missing"]) + "."
    yield "## How to read it"
    yield METHOD
    yield "## Pictures"
    for picture in drawn:
        yield f"![{picture.name}]({stem}-{picture.name}.svg)"
        yield f"{picture.caption} Numbers: [{stem}-{picture.name}.csv]({stem}-{picture.name}.csv)."
    yield "## Tables"
    for entry in tables(result):
        yield f"### {entry.title}"
        yield markdown_of(entry)
    yield "## Where it comes from"
    yield provenance(result, origin, stem)


def provenance(result: Result, origin: Result, stem: str) -> str:
    """Returns command, commit, machine, seeds and files."""
    seeds = sorted({row["seed"] for row in result["rows"]})
    lines = [
        f"- command: `{origin['command']}`",
        f"- commit: `{origin['commit'] or 'unknown'}`; machine: {origin['machine']}",
        f"- seeds of supernets: {', '.join(map(str, seeds)) or 'none'}",
        f"- every supernet: [{stem}.json]({stem}.json); every architecture trained alone: "
        f"[{stem}-tabular.csv]({stem}-tabular.csv)",
    ]
    return "\n".join(lines)


def markdown_of(entry: TextTable) -> str:
    """Returns a table as Markdown."""
    return markdown_table(entry.head, entry.rows)
