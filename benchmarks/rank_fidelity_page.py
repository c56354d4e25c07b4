"""Turns the rows of ``magicbert analyze ranking`` into docs/results/rank-fidelity.

    python benchmarks/rank_fidelity_page.py runs/NAME/analyze-ranking docs/results/rank-fidelity

writes ``rank-fidelity.json`` (a row per supernet), ``rank-fidelity-tabular.csv`` (the tabular
benchmark), one ``rank-fidelity-*.svg`` and ``.csv`` per plot, and renews the part of
``rank-fidelity.md`` between the two ``generated`` comments. Words around that part are written by
hand; no figure and no verdict is. Rows of several folders are taken together.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from results_page import BEGIN, END, renew_page

from magicbert.config.yaml_text import parse_yaml
from magicbert.errors import EXIT_USER_ERROR, UserError
from magicbert.ranking.study_result import study_result
from magicbert.ranking.study_rows import read_study_rows
from magicbert.ranking.table import Table
from magicbert.records import write_record, write_text_atomically
from magicbert.report.plots import standing_alone
from magicbert.report.ranking_page import page
from magicbert.report.ranking_pictures import pictures
from magicbert.report.section import CsvTable

SCHEMA = "magicbert/rank-fidelity/1"
ROWS, CONFIG = "rows.jsonl", "config.yaml"


def main(folders: Sequence[Path], target: Path, command: str = "") -> None:
    """Writes record, table, plots with their numbers, and page.

    Args:
        folders: of the analysis; each holds rows and the trail of the stage.
        target: of the files, without a suffix.
        command: that made the rows; empty = the verb with the configurations beside them.
    """
    rows = [row for folder in folders for row in read_study_rows(folder / ROWS)]
    result, origin = study_result(rows), origin_of(folders, rows, command)
    drawn = list(pictures(result))
    write_record(target.with_suffix(".json"), SCHEMA, {**origin, **recorded(result)})
    Table.from_rows(rows).write(beside(target, "tabular.csv"))
    for picture in drawn:
        write_text_atomically(beside(target, f"{picture.name}.svg"), standing_alone(picture.svg))
        numbers = picture.numbers
        file = beside(target, f"{picture.name}.csv")
        CsvTable(file.stem, numbers.head, numbers.rows).write(file.parent)
    if not target.with_suffix(".md").exists():
        write_text_atomically(target.with_suffix(".md"), f"# Rank fidelity\n\n{BEGIN}\n{END}\n")
    renew_page(target.with_suffix(".md"), page(result, origin, drawn, target.name))


def beside(target: Path, name: str) -> Path:
    """Returns a file whose name begins like the target's."""
    return target.with_name(f"{target.name}-{name}")


def recorded(result: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the result without what stands in the CSV files beside it."""
    return {name: part for name, part in result.items() if name not in ("scatter", "curves")}


def origin_of(
    folders: Sequence[Path], rows: Sequence[Mapping[str, Any]], command: str
) -> dict[str, Any]:
    """Returns command, commits, machine and configuration behind the rows.

    A study goes on for days and over several commits, so each row names its own.

    Raises:
        UserError: a trail is missing or damaged.
    """
    trails = [read_trail(folder) for folder in folders]
    machines = {f"{env['system']}, {env['processors']} processors" for env, _ in trails}
    commits = {row.get("commit") or "unknown" for row in rows if row["kind"] != "study"}
    named = (f"magicbert analyze ranking --config {folder / CONFIG}" for folder in folders)
    return {
        "command": command or "; ".join(named),
        "commit": ", ".join(sorted(commits)),
        "machine": "; ".join(sorted(machines)),
        "configs": [config["ranking"] for _, config in trails],
    }


def read_trail(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns environment and configuration of a stage's folder."""
    try:
        environment = json.loads((folder / "environment.json").read_text(encoding="utf-8"))
        config = parse_yaml((folder / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(
            f"{folder}: is not the folder of an analysis of ranking: {error}"
        ) from error
    return environment, config


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("folders", nargs="+", type=Path, help="such as runs/NAME/analyze-ranking")
    parser.add_argument("output", type=Path, help="such as docs/results/rank-fidelity")
    parser.add_argument("--command", default="", help="that made the rows")
    arguments = parser.parse_args()
    try:
        main(arguments.folders, arguments.output, arguments.command)
    except UserError as error:
        parser.exit(EXIT_USER_ERROR, f"{error}\n")
