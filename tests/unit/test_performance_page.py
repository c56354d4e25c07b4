"""docs/performance.md holds what the records say, and nothing was edited by hand."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from magicbert.bench.goals import GOALS, Goal, goal_row
from magicbert.bench.interference.suite import interference_suite
from magicbert.bench.kernels.suite import kernel_suite
from magicbert.bench.performance_page import generated
from magicbert.bench.search.sizes import IDEAL
from magicbert.bench.search.suite import search_suite
from magicbert.bench.step.suite import step_suite
from magicbert.bench.suite_record import SCHEMA
from magicbert.config.roots import BenchConfig
from magicbert.config.sections import MeasureSection
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
    assert "not measured" in generated(tmp_path / "nothing")


def row(case: str, percent: float, ratios: dict[str, float], **variant: int) -> dict[str, Any]:
    def figures(factor: float) -> dict[str, Any]:
        return {
            "microseconds": {"magicbert": {"median": 2e6}},
            "percent_of_floor": {"magicbert": {"median": factor * percent}},
            "peer_over_own": {name: {"median": value} for name, value in ratios.items()},
        }

    modes = {"launches": figures(0.5), "replays": figures(1.0)}
    return {"case": case, "variant": variant, "units": 1000, "modes": modes}


def test_a_goal_is_reached_at_its_worst_size_by_replays_against_the_best_peer():
    forward = "depthwise convolution, forward"
    record = {
        "rows": [
            row(forward, 91, {"eager": 9.0, "FLA": 1.5}, tokens=65536, width=768),
            row(forward, 89, {"eager": 9.0, "FLA": 1.3}, tokens=65536, width=1024),
            row(forward, 10, {"eager": 0.1}, tokens=8192, width=768),
        ]
    }
    percent, ratio = (goal for goal in GOALS if goal.case == forward)
    assert goal_row(percent, record)[3:] == ("89", "yes")
    assert goal_row(ratio, record)[3:] == ("1.3", "no")
    assert goal_row(ratio, {"rows": []})[3:] == ("not measured", "")
    rate = Goal("step-cpu", forward, "rate", 400.0)
    assert goal_row(rate, record)[3:] == ("500 tokens/s", "yes")
    ideal = Goal("search-cpu", forward, "ideal", 95, "FLA")
    shares = {"rows": [one | {"facts": {IDEAL: 1.6}} for one in record["rows"][:2]]}
    assert goal_row(ideal, shares)[3:] == ("81.2", "no")


BUILDERS = kernel_suite, step_suite, search_suite, interference_suite


def test_every_goal_names_a_case_that_exists():
    config = BenchConfig(measure=MeasureSection(device="cpu"))
    suites = [build(config) for build in BUILDERS]
    names = {case.name for suite in suites for case in suite.cases}
    assert {goal.case for goal in GOALS} - names == {"masking"}


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
