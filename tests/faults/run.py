"""Runs the fault matrix: python tests/faults/run.py [IDS...] [--again]

Each row is written to docs/results/faults.json as soon as it is done; a row that has a result for
this very product (the committed tree of magicbert/) is left out unless --again is given, so a run
that was cut goes on. The table in docs/reliability.md is redrawn from the file.
"""

from __future__ import annotations

import argparse
import json
import platform
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
from matrix import Finding, Row, load_rows, select, sort_key

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "docs" / "results" / "faults.json"
PAGE = ROOT / "docs" / "reliability.md"
GROUPS = {
    "A": "crash and resume", "B": "exactness", "C": "storage", "D": "ranks", "E": "numbers",
    "F": "input", "G": "security",
}  # fmt: skip
PACKAGES = ("torch", "deepspeed", "transformers", "numpy")
SEEDS = "fixed in the checks (tests/faults/rows); instants of kills are what the clock makes them"
MAX_SECONDS = 1800  # of one check; all rows together take about as long on two idle cores
MAX_CELL = 400
BROKEN = "the check broke: "
BEGIN, END = "<!-- faults: begin -->", "<!-- faults: end -->"


def git(*words: str) -> str:
    """Returns what git prints."""
    return subprocess.check_output(["git", *words], cwd=ROOT, text=True).strip()


def product() -> str:
    """Returns the identity of the product: its committed tree, marked if it was changed since."""
    changed = git("status", "--porcelain", "--", "magicbert")
    return git("rev-parse", "--short", "HEAD:magicbert") + ("+changes" if changed else "")


def run_row(entry: Row) -> dict[str, Any]:
    """Runs one row with its mutants and peers."""
    start = time.monotonic()
    finding = run_check(entry.check, is_thorough=True)
    result: dict[str, Any] = {
        "id": entry.id,
        "fault": entry.fault,
        "expected": entry.expected,
        "passed": finding.passed,
        "figure": finding.figure,
        "num_fired": finding.num_fired,
        "peer_figure": None,
        "skipped": finding.skipped,
    }
    if finding.passed is not None:
        mutants = {text: run_mutant(check) for text, check in entry.mutants.items()}
        # What each of them showed is kept: a mutant that merely fails to start proves nothing.
        result["mutants"] = {text: seen.figure[:300] for text, seen in mutants.items()}
        caught = [seen.passed is False for seen in mutants.values() if seen.passed is not None]
        figures = [f"{name}: {run_peer(measure)}" for name, measure in entry.peers.items()]
        result["peer_figure"] = "; ".join(figures) or None
        is_proven = finding.num_fired > 0 and bool(caught) and all(caught)
        result["passed"] = bool(finding.passed and is_proven)
    seconds = round(time.monotonic() - start, 1)
    commit = git("rev-parse", "--short", "HEAD")
    return result | {"seconds": seconds, "commit": commit, "product": product()}


def run_check(check: Any, *, is_thorough: bool) -> Finding:
    """Runs a check in a folder of its own; an exception is a failure, not the end."""
    with tempfile.TemporaryDirectory(prefix="magicbert-faults-") as folder, time_limit():
        try:
            finding: Finding = check(Path(folder), is_thorough)
        except Exception as error:
            return Finding(False, f"{BROKEN}{type(error).__name__}: {str(error)[:200]}", 1)
        finding = replace(finding, figure=finding.figure.replace(folder, "FOLDER"))
    return finding


def run_mutant(check: Any) -> Finding:
    """Runs a mutant at the small size, and at the large one only if the small did not notice."""
    finding = run_check(check, is_thorough=False)
    finding = run_check(check, is_thorough=True) if finding.passed else finding
    # A mutant that breaks the check itself has not been noticed by it.
    return replace(finding, passed=None) if finding.figure.startswith(BROKEN) else finding


@contextmanager
def time_limit() -> Iterator[None]:
    """Raises ``TimeoutError`` in a block that takes longer than any row may."""

    def give_up(number: int, frame: object) -> None:
        raise TimeoutError(f"took longer than {MAX_SECONDS} s")

    former = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(MAX_SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, former)


def run_peer(measure: Any) -> str:
    """Measures a peer in a folder of its own."""
    with tempfile.TemporaryDirectory(prefix="magicbert-faults-") as folder, time_limit():
        try:
            return str(measure(Path(folder)))
        except Exception as error:
            return f"not measured ({type(error).__name__})"


def read_results() -> dict[str, dict[str, Any]]:
    """Returns the rows of the result file by id."""
    if not RESULTS.is_file():
        return {}
    return {entry["id"]: entry for entry in json.loads(RESULTS.read_text())["rows"]}


def write_results(results: dict[str, dict[str, Any]]) -> None:
    """Writes the result file and redraws the table."""
    rows = [results[id] for id in sorted(results, key=sort_key)]
    machine = f"{platform.system()} {platform.machine()}, Python {platform.python_version()}"
    record = {
        "command": "make faults",
        "machine": machine,
        "versions": {name: metadata.version(name) for name in PACKAGES},
        "seeds": SEEDS,
        "rows": rows,
    }
    RESULTS.write_text(json.dumps(record, indent=1) + "\n")
    if PAGE.is_file():
        before, _, rest = PAGE.read_text().partition(BEGIN)
        _, _, after = rest.partition(END)
        PAGE.write_text(f"{before}{BEGIN}\n{table(rows)}\n{END}{after}")


def table(rows: list[dict[str, Any]]) -> str:
    """Draws the rows as a Markdown table."""
    lines = ["| row | fault | expected | result | figure | peers |", "|---|---|---|---|---|---|"]
    groups: set[str] = set()
    for entry in rows:
        group = entry["id"][0]
        if group not in groups:
            lines.append(f"| **{group}** | **{GROUPS.get(group, '')}** |  |  |  |  |")
            groups.add(group)
        verdict = {True: "passed", False: "**failed**", None: "skipped"}[entry["passed"]]
        figure = entry["skipped"] or entry["figure"]
        cells = (entry["fault"], entry["expected"], verdict, figure, entry["peer_figure"] or "")
        lines.append(f"| {entry['id']} | " + " | ".join(map(cell, cells)) + " |")
    return "\n".join(lines)


def cell(text: str) -> str:
    """Returns a text that stays in its cell."""
    plain = " ".join(text.replace("|", "/").split())
    return plain if len(plain) <= MAX_CELL else f"{plain[:MAX_CELL]}..."


def main() -> int:
    """Runs the rows that have no result for this product; returns 1 if any row failed."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("ids", nargs="*", help="rows or groups, such as A1 D; none = all")
    parser.add_argument("--again", action="store_true", help="also rows that have a result")
    arguments = parser.parse_args()
    results, current = read_results(), product()
    for entry in select(load_rows(), arguments.ids):
        known = results.get(entry.id, {})
        if known.get("product") == current and known["passed"] is not False and not arguments.again:
            continue
        print(f"{entry.id}: {entry.fault}", flush=True)
        results[entry.id] = run_row(entry)
        write_results(results)
        shown = results[entry.id]
        verdict = f"passed={shown['passed']} in {shown['seconds']:.0f} s"
        print(f"    {verdict}  {shown['skipped'] or shown['figure']}", flush=True)
    failed = [id for id, entry in results.items() if entry["passed"] is False]
    print(f"{len(results)} rows, failed: {', '.join(failed) or 'none'}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
