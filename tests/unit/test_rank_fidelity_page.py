"""The committed page of a study: record, table, plots with their numbers, verdicts from rows."""

from __future__ import annotations

import csv
import re
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any
from xml.etree import ElementTree

import pytest
from page_scripts import run_script
from synthetic_run import write_trail
from synthetic_study import alone_rows, study_rows, supernet_row, write_study

from magicbert.config.roots import AnalyzeConfig
from magicbert.ranking.study_result import study_result
from magicbert.ranking.table import Table
from magicbert.ranking.tables import tables
from magicbert.records import read_record
from magicbert.report.ranking_pictures import pictures
from magicbert.report.ranking_section import ranking_part

ROOT = Path(__file__).parents[2]
SCRIPT = "benchmarks/rank_fidelity_page.py"
PLOTS = {"tau", "tau-long", "differences", "scatter", "ablations", "curves", "relations"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished analysis as the stage leaves it."""
    place = tmp_path_factory.mktemp("runs") / "study" / "analyze-ranking"
    write_trail(place, AnalyzeConfig(target="ranking"), [])
    rows = study_rows(2)
    write_study(place / "rows.jsonl", [{**rows[0], "commit": "abc"}, *rows[1:]])
    return place


def build(*arguments: object) -> CompletedProcess[str]:
    return run_script(SCRIPT, *arguments)


def test_the_page_and_all_that_stands_beside_it(folder, tmp_path):
    page = tmp_path / "page.md"
    page.write_text(
        "# By hand\n\n<!-- generated: begin -->\nformer words\n<!-- generated: end -->\n"
    )
    done = build(folder, tmp_path / "page", "--command", "magicbert analyze ranking --run.name x")
    assert done.returncode == 0, done.stderr
    text = page.read_text()
    assert text.startswith("# By hand\n")
    assert "former words" not in text
    assert "`magicbert analyze ranking --run.name x`" in text

    record = read_record(tmp_path / "page.json", "magicbert/rank-fidelity/1")
    assert {"rows", "command", "commit", "machine"} <= set(record)
    assert record["commit"] == "abc, unknown"  # a study goes on over commits; older rows name none
    fields = {"method", "seed", "settings", "tau", "spearman", "loss", "steps", "flops"}
    assert all(fields <= set(row) for row in record["rows"])
    for entry in record["findings"]:
        assert f"| {entry['topic']} | **{entry['verdict']}** | {entry['text']} |" in text

    assert len(Table.read(tmp_path / "page-tabular.csv")) == 64
    for name in PLOTS:
        assert f"page-{name}.svg" in text
        ElementTree.parse(tmp_path / f"page-{name}.svg")
        with (tmp_path / f"page-{name}.csv").open() as stream:
            assert len(list(csv.reader(stream))) > 1
    links = set(re.findall(r"\]\(([^)]+)\)", text))
    assert all((tmp_path / link).is_file() for link in links)


def test_a_folder_of_something_else_is_one_message(tmp_path):
    for damage in ("no rows", "no trail"):
        if damage == "no trail":
            write_study(tmp_path / "rows.jsonl", alone_rows())
        done = build(tmp_path, tmp_path / "page")
        assert done.returncode == 2
        assert "Traceback" not in done.stderr
    assert not (tmp_path / "page.json").exists()


def drawn(rows: list[dict[str, Any]]) -> set[str]:
    result = study_result(rows)
    parts, numbers = ranking_part(result)
    assert len(numbers) == len(list(pictures(result)))
    assert all(len(table.head) == len(cells) for table in tables(result) for cells in table.rows)
    for part in parts:
        if "<svg" in part:
            ElementTree.fromstring(part.split("<figcaption>")[0].removeprefix("<figure>"))
    return {picture.name for picture in pictures(result)}


@pytest.mark.parametrize(
    ("rows", "names"),
    [
        (alone_rows(1)[:2], {"scatter"}),
        ([*alone_rows(1), supernet_row("magic-t", 0, 1.0)], {"tau", "scatter", "curves"}),
        (
            [*alone_rows(), *(supernet_row(m, 0, 1.0) for m in ("spos", "odd-method"))],
            {"tau", "differences", "scatter", "curves"},
        ),
        ([*alone_rows(), supernet_row("magic-t", 0, 1.0, "k=2")], {"scatter", "ablations"}),
    ],
)
def test_any_part_of_a_study_is_drawn(rows, names):
    assert drawn(rows) == names


def test_another_budget_is_drawn_with_what_has_most_seeds():
    """The line of two seeds beside eight would say nothing; their numbers stand in the CSV."""
    (picture,) = (p for p in pictures(study_result(study_rows(3))) if p.name == "tau-long")
    assert "MAGIC-A, equal-flops (3)" in picture.svg
    assert "k=2" not in picture.svg
    assert {row[1] for row in picture.numbers.rows} >= {"default", "equal-flops", "k=2"}


def test_rows_without_interference_curves_and_scores_are_drawn():
    bare = [{**supernet_row(m, s, 1.0), "interference": None, "curve": [], "scores": {}}
            for m in ("spos", "magic-a") for s in range(3)]  # fmt: skip
    assert drawn([*alone_rows(), *bare]) == {"scatter"}


def test_architectures_of_one_size_and_one_score_are_drawn():
    """Nothing but seeds tells them apart: tau of size is not defined."""
    rows = [{**row, "parameters": 5, "flops": 9} if row["kind"] == "alone" else row
            for row in alone_rows()[:12]]  # fmt: skip
    names = {row["architecture"] for row in rows}
    for seed in range(2):
        flat = supernet_row("spos", seed, 1.0)
        rows.append({**flat, "scores": {n: 5.0 if seed else flat["scores"][n] for n in names}})
    assert drawn(rows) == {"tau", "scatter", "curves"}


@pytest.mark.parametrize("name", ["rank-fidelity", "rank-fidelity-wide"])
def test_a_committed_page_is_that_of_its_committed_rows(name, tmp_path):
    """Anyone can turn the rows into the page again; no figure on it is typed."""
    results = ROOT / "docs" / "results"
    command = read_record(results / f"{name}.json", "magicbert/rank-fidelity/1")["command"]
    done = build(results / f"{name}-rows", tmp_path / name, "--command", command)
    assert done.returncode == 0, done.stderr
    committed, renewed = (
        (folder / f"{name}.md").read_text().partition("<!-- generated: begin -->")[2]
        for folder in (results, tmp_path)
    )
    assert (
        renewed == committed.partition("<!-- generated: end -->")[0] + "<!-- generated: end -->\n"
    )
