"""The table of docs/reliability.md is that of docs/results/faults.json; rows have mutants."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "faults"
sys.path.insert(0, str(FOLDER))
import run as fault_runner  # noqa: E402
from matrix import load_rows  # noqa: E402

# What `make faults` promises to show, see docs/reliability.md.
GROUPS = set(fault_runner.GROUPS)


def table_of_page() -> str:
    text = fault_runner.PAGE.read_text(encoding="utf-8")
    assert text.count(fault_runner.BEGIN) == text.count(fault_runner.END) == 1
    return text.split(fault_runner.BEGIN)[1].split(fault_runner.END)[0].strip()


def test_the_page_shows_the_result_file() -> None:
    if not fault_runner.RESULTS.is_file():
        assert table_of_page() == "", "a table without docs/results/faults.json"
        return
    rows = json.loads(fault_runner.RESULTS.read_text(encoding="utf-8"))["rows"]
    assert table_of_page() == fault_runner.table(rows).strip()


def test_every_row_has_a_mutant_and_every_group_a_row() -> None:
    rows = load_rows()
    assert {id[0] for id in rows} == GROUPS
    assert not [id for id, entry in rows.items() if not entry.mutants]


def test_the_table_says_what_was_skipped_failed_and_measured_elsewhere() -> None:
    rows = [
        {"id": "A1", "passed": True, "figure": "0 | lost", "peer_figure": "x: 3", "skipped": None},
        {"id": "A2", "passed": None, "figure": "", "peer_figure": None, "skipped": "no strace"},
        {"id": "B1", "passed": False, "figure": "1 lost", "peer_figure": None, "skipped": None},
    ]
    shown = fault_runner.table([{"fault": "f", "expected": "e", **entry} for entry in rows])
    assert "| A1 | f | e | passed | 0 / lost | x: 3 |" in shown
    assert "| A2 | f | e | skipped | no strace |  |" in shown
    assert "| B1 | f | e | **failed** | 1 lost |  |" in shown


@pytest.mark.parametrize(("ids", "chosen"), [([], 3), (["A"], 2), (["A2", "B1"], 2), (["Z"], 0)])
def test_rows_are_chosen_by_id_or_group(ids: list[str], chosen: int) -> None:
    rows = {id: entry for id, entry in load_rows().items() if id in ("A1", "A2", "B1")}
    assert len(list(fault_runner.select(rows, ids))) == chosen
