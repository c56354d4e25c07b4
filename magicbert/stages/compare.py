"""``magicbert compare``: models side by side, as record, Markdown, CSV and page."""

from __future__ import annotations

import dataclasses
import logging
from typing import Any

from magicbert.bench.machine import describe_machine, package_versions
from magicbert.comparison.forms import Lineup
from magicbert.comparison.latency import Timing
from magicbert.comparison.rows import compared_rows
from magicbert.comparison.table import caption, markdown, text_table
from magicbert.config.roots import CompareConfig
from magicbert.config.sections import CompareSection
from magicbert.errors import UserError
from magicbert.export.onnx_packages import require_onnx
from magicbert.records import write_record, write_text_atomically
from magicbert.report.comparison_section import comparison_section
from magicbert.report.page import standing_page
from magicbert.run_lock import alone_in
from magicbert.stages.finetune import quieten_transformers
from magicbert.trail import Trail, describe_environment, stage_folder

LOGGER = logging.getLogger("magicbert")
SCHEMA = "magicbert/comparison/1"
STEM = "comparison"


def run(config: CompareConfig) -> None:
    """Measures and writes the comparison into the folder ``compare`` of the run.

    Raises:
        UserError: no model is named, a record is missing, or ONNX is asked for and not there.
    """
    section = config.compare
    if not section.models:
        raise UserError("compare.models: name at least one model in the configuration file")
    if section.latency and section.onnx:
        require_onnx()
    quieten_transformers()
    folder = stage_folder(config.run, "compare")
    payload = compared(section)
    with alone_in(folder), Trail(folder, config):
        write_record(folder / f"{STEM}.json", SCHEMA, payload)
        write_text_atomically(folder / f"{STEM}.md", markdown(payload))
        part = comparison_section(payload)
        for table in part.csv_tables:
            table.write(folder)
        page = standing_page(f"Comparison, {config.run.name}", [part])
        write_text_atomically(folder / f"{STEM}.html", page)
        LOGGER.info("%s", markdown(payload))
        LOGGER.info("comparison: %s", folder / f"{STEM}.html")


def compared(section: CompareSection) -> dict[str, Any]:
    """Returns the record: the rows, and how and where they were measured."""
    timing = Timing(section.rows, section.length, section.rounds, threads=section.threads)
    payload: dict[str, Any] = {
        "rows": compared_rows(section, Lineup(timing)),
        "timing": {
            "rows": timing.rows,
            "length": timing.length,
            "rounds": timing.rounds,
            "threads": timing.threads,
        },
        "machine": describe_machine(),
        "versions": package_versions(),
        "commit": describe_environment()["commit"],
    }
    table = dataclasses.asdict(text_table(payload["rows"]))
    return payload | {"table": table | {"caption": caption(payload)}}
