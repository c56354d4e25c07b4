"""``magicbert analyze TARGET``: whether a supernet can be trusted, as numbers and pictures."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from magicbert.config.roots import AnalyzeConfig
from magicbert.errors import UserError
from magicbert.records import read_record, write_record, write_text_atomically
from magicbert.report.plots import standing_alone
from magicbert.report.reading import RESULTS
from magicbert.run_lock import alone_in
from magicbert.stages import analyze_interference, analyze_ranking, analyze_sampler
from magicbert.stages.tables import show_table
from magicbert.trail import Trail, stage_folder

LOGGER = logging.getLogger("magicbert")
RESULT, SCHEMA = RESULTS["analyze"]
TARGETS = {"sampler": analyze_sampler, "interference": analyze_interference}


def run(config: AnalyzeConfig) -> None:
    """Analyses, prints a table, and writes ``result.json`` for the report.

    Raises:
        UserError: the run has no supernet where one is needed, or a layer is not in its space.
    """
    if config.target == "ranking":
        analyze_ranking.run(config)
        return
    analysis = TARGETS[config.target]
    folder = stage_folder(config.run, f"analyze-{config.target}")
    with alone_in(folder):
        former = read_record(folder / RESULT, SCHEMA) if (folder / RESULT).is_file() else None
        if analysis.is_known(config, former):
            LOGGER.info("analysis is finished already: %s", folder / RESULT)
            return
        analyse_in(folder, config)


def plan(config: AnalyzeConfig) -> None:
    """Prints what an analysis will take, and starts nothing.

    Raises:
        UserError: it takes moments.
    """
    if config.target != "ranking":
        raise UserError(f"--plan is for analyze ranking, not for analyze {config.target}")
    analyze_ranking.plan(config)


def analyse_in(folder: Path, config: AnalyzeConfig) -> None:
    """Analyses in a folder that no other process works in."""
    analysis = TARGETS[config.target]
    with Trail(folder, config):
        result: Mapping[str, Any] = {"target": config.target, **analysis.analyse(config)}
        write_record(folder / RESULT, SCHEMA, dict(result))
        for title, head, rows in analysis.tables(result):
            show_table(head, rows, title)
        write_pictures(folder, analysis.pictures(result))
        LOGGER.info("analysis finished: %s", folder / RESULT)


def write_pictures(folder: Path, pictures: Mapping[str, str]) -> None:
    """Writes one SVG file per picture."""
    for name, svg in pictures.items():
        write_text_atomically(folder / f"{name}.svg", standing_alone(svg))
        LOGGER.info("picture: %s", folder / f"{name}.svg")
