"""docs/performance.md holds what the records say, and nothing was edited by hand."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from magicbert.bench.performance_page import generated
from magicbert.bench.suite_record import SCHEMA
from magicbert.errors import UserError
from magicbert.trail import run_git

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "performance.md"
RESULTS = ROOT / "benchmarks" / "results"
RECORDS = sorted(
    file for file in RESULTS.glob("*.json") if json.loads(file.read_text()).get("schema") == SCHEMA
)


def test_the_page_is_what_the_script_writes():
    """The script is ``python benchmarks/performance_page.py``; its work must be committed."""
    text = PAGE.read_text(encoding="utf-8")
    begin, end = "<!-- generated: begin -->", "<!-- generated: end -->"
    assert text.split(begin)[1].split(end)[0].strip() == generated(RESULTS).strip()


def test_the_script_runs():
    before = PAGE.read_bytes()
    script = str(ROOT / "benchmarks" / "performance_page.py")
    subprocess.run([sys.executable, script], cwd=ROOT, check=True, timeout=300)
    assert PAGE.read_bytes() == before


def test_an_edited_record_is_refused(tmp_path):
    (tmp_path / "kernels-cpu.json").write_text(json.dumps({"schema": SCHEMA, "sha256": "0"}))
    with pytest.raises(UserError, match="edited by hand"):
        generated(tmp_path)
    assert generated(tmp_path / "nothing") == ""


@pytest.mark.parametrize("file", RECORDS, ids=lambda file: file.name)
def test_a_record_says_where_it_comes_from(file):
    record = json.loads(file.read_text(encoding="utf-8"))
    commit = record["commit"]
    assert len(commit) == 40, "measured with uncommitted changes, or outside a checkout"
    assert {"torch", "python"} <= set(record["versions"])
    assert record["device"]["kind"] in ("cpu", "cuda")
    assert record["rows"]
    if run_git("rev-parse", "--is-shallow-repository") == "false":
        assert run_git("merge-base", "--is-ancestor", commit, "HEAD") is not None
