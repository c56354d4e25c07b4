"""The record of the engine's measurements: kept row by row, so that a cut run goes on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from magicbert.bench.engine.matches import Match, matches
from magicbert.bench.machine import code_digest, describe_machine, package_versions
from magicbert.config.roots import BenchConfig
from magicbert.config.sections import EngineBenchSection
from magicbert.errors import UserError
from magicbert.records import read_record, write_record
from magicbert.trail import current_commit, stage_folder

SCHEMA = "magicbert/bench-engine/1"
FILE = "engine.json"
# What a row was measured on: a change here makes old rows worthless, a change elsewhere does not.
MEASURED_ROOMS = ("bench", "config", "space", "supernet", "training")
SIZES = ("num_layers", "hidden_size", "rows", "length", "rounds", "steps", "peer_rounds", "seed")
UNIT = "milliseconds of one step, mean over ranks, median over rounds; cpu: of all threads"


def record_file(config: BenchConfig) -> Path:
    """Returns the file in the stage's folder that grows row by row."""
    return stage_folder(config.run, "bench") / FILE


def new_record(setting: EngineBenchSection) -> dict[str, Any]:
    """Returns a record without rows."""
    return {
        "command": "magicbert bench engine",
        "commit": current_commit(),
        "code_sha256": code_digest(MEASURED_ROOMS),
        "machine": describe_machine(),
        "versions": package_versions(),
        "threads_per_rank": 1,
        "setting": {name: getattr(setting, name) for name in SIZES},
        "unit": UNIT,
        "rows": [],
    }


def open_record(file: Path, setting: EngineBenchSection) -> dict[str, Any]:
    """Returns the record so far; rows of other code, versions, machine or sizes are left out."""
    record = new_record(setting)
    try:
        former = read_record(file, SCHEMA)
    except UserError:
        return record
    decisive = ("code_sha256", "machine", "versions", "setting")
    if all(former.get(name) == record[name] for name in decisive):
        record["rows"] = former["rows"]
    return record


def missing(record: dict[str, Any], setting: EngineBenchSection, num_ranks: int) -> list[Match]:
    """Returns the matches that have no row yet."""
    found = {Match.read(row) for row in record["rows"]}
    return [match for match in matches(setting, num_ranks) if match not in found]


def add_row(file: Path, record: dict[str, Any], row: dict[str, Any]) -> None:
    """Adds a row and writes the record."""
    record["rows"].append(row)
    write_record(file, SCHEMA, record)
