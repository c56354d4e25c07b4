"""The generated part of docs/performance.md: every table of ``benchmarks/results``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from magicbert.bench import suite_record, suite_table
from magicbert.bench.goals import goals_markdown
from magicbert.bench.kernels import resources
from magicbert.markdown import markdown_table
from magicbert.records import read_record

# Title of each target's part, in the order of the page.
TARGETS = {
    "kernels": "Kernels",
    "step": "A whole step",
    "data": "Data",
    "search": "Search",
    "interference": "Interference",
}
AOT_TITLE = "Kernels as compiled, without a GPU"


def generated(results: Path) -> str:
    """Returns all parts as Markdown.

    Args:
        results: folder with ``<target>-<device>.json`` and ``aot.json``; what is not there is left
            out.

    Raises:
        UserError: a record is damaged or was edited by hand.
    """
    parts, records = [], {}
    for target, title in TARGETS.items():
        for file in sorted(results.glob(f"{target}-*.json"), key=lambda file: file.stem):
            record = records[file.stem] = read_record(file, suite_record.SCHEMA)
            heading = f"{title}: {device_of(record)} (`{file.name}`)"
            parts.append(part(heading, suite_table.markdown, record))
    aot = results / resources.FILE
    if aot.is_file():
        parts.append(part(AOT_TITLE, aot_markdown, read_record(aot, resources.SCHEMA)))
    return "\n\n".join([f"## Goals\n\n{goals_markdown(records)}", *parts])


def part(
    title: str, markdown: Callable[[Mapping[str, Any]], str], record: Mapping[str, Any]
) -> str:
    """Returns one record under its heading."""
    return f"## {title}\n\n{markdown(record)}"


def device_of(record: Mapping[str, Any]) -> str:
    """Returns what a record was measured on, in a few words."""
    return str(record["device"].get("name", "CPU"))


def aot_markdown(record: Mapping[str, Any]) -> str:
    """Returns what compiled kernels use as Markdown."""
    table = markdown_table(resources.HEAD, resources.table_rows(record))
    return f"{table}\n\n{resources.origin(record)}"
