from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from synthetic_run import write_run

from magicbert.records import read_record

ROOT = Path(__file__).parents[2]
SCRIPT = "benchmarks/results_page.py"


def collect(run: Path, output: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / SCRIPT), str(run), str(output)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_the_generated_part_is_renewed_and_the_rest_is_kept(tmp_path):
    run = write_run(tmp_path / "real", tasks=("cola", "rte"))
    page = tmp_path / "page.md"
    page.write_text(
        "# By hand\n\n<!-- generated: begin -->\nold\n<!-- generated: end -->\n\nEnd.\n"
    )
    assert collect(run, tmp_path / "page").returncode == 0
    text = page.read_text()
    assert text.startswith("# By hand\n")
    assert text.endswith("<!-- generated: end -->\n\nEnd.\n")
    assert "old" not in text

    record = read_record(tmp_path / "page.json", "magicbert/results/1")
    stages = {row["stage"]: row["result"] for row in record["rows"]}
    analyses = {"analyze-interference", "analyze-sampler"}
    assert set(stages) == {"prepare", "pretrain", "search", "retrain", "finetune"} | analyses
    gap = stages["pretrain"]["unigram_entropy"] - stages["pretrain"]["valid_loss"]
    assert f"**{gap:.3f} nats below** it" in text
    for row in stages["finetune"]["summary"]:
        figures = (100 * row[name] for name in ("median", "minimum", "maximum"))
        assert "| {:.1f} ({:.1f} to {:.1f}) |".format(*figures) in text
    for name in ("losses", "glue"):
        assert f"page-{name}.svg" in text
        assert (tmp_path / f"page-{name}.svg").read_text().startswith("<svg xmlns=")

    assert collect(run, tmp_path / "page").returncode == 0
    assert page.read_text() == text


def test_a_run_that_is_not_there_is_one_message(tmp_path):
    done = collect(tmp_path / "none", tmp_path / "page")
    assert done.returncode == 2
    assert "no such run" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "page.json").exists()
