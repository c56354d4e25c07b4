"""Tier P of the fault matrix: the small size of its rows, and the mutants they must catch."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from matrix import load_rows

ROWS = {id: entry for id, entry in load_rows().items() if entry.tier == "P"}
MUTANTS = [(id, text) for id, entry in ROWS.items() for text in entry.mutants]

pytestmark = pytest.mark.distributed


@pytest.mark.parametrize("id", ROWS)
def test_row(id: str, tmp_path: Path) -> None:
    finding = ROWS[id].check(tmp_path, False)
    if finding.passed is None:
        pytest.skip(str(finding.skipped))
    assert finding.num_fired > 0, "the fault did not take place"
    assert finding.passed, finding.figure


@pytest.mark.parametrize(("id", "text"), MUTANTS)
def test_mutant(id: str, text: str, tmp_path: Path) -> None:
    finding = ROWS[id].mutants[text](tmp_path, False)
    if finding.passed is None:
        pytest.skip(str(finding.skipped))
    assert finding.passed is False, f"{id} does not notice: {text}"
