"""The whole chain through the command line, with the tiny configs made tinier."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from magicbert.records import read_record
from magicbert.report.reading import RESULTS, read_run

ROOT = Path(__file__).parents[2]
TINY = ROOT / "configs" / "tiny"
CHAIN = ("prepare", "pretrain", "analyze", "search", "retrain", "export", "finetune", "report")
FEW_STEPS = {"num_steps": 6, "rows_per_step": 8, "rows_per_micro_batch": 4, "log_every": 2,
             "evaluate_every": 3, "num_eval_batches": 2, "checkpoint_every": 3}  # fmt: skip
FOLDERS = {"analyze": "analyze-interference"}
SMALLER: dict[str, dict[str, dict[str, Any]]] = {
    "prepare": {"corpus": {"max_documents": 300}, "tokenizer": {"vocab_size": 600}},
    "pretrain": {
        "space": {"num_layers": 2},
        "model": {"hidden_size": 16},
        "alignment": {"every": 3},
        "training": FEW_STEPS,
    },
    "analyze": {"interference": {"num_contexts": 2, "num_batches": 1, "rows_per_batch": 4}},
    "search": {
        "search": {"num_rounds": 1, "samples_per_round": 4, "num_finalists": 3,
                   "num_dev_batches": 1, "num_final_batches": 1}
    },
    "retrain": {"model": {"hidden_size": 16}, "training": FEW_STEPS},
    "finetune": {
        "finetune": {"learning_rates": [1e-3], "seeds": [0], "num_epochs": 1, "max_train_rows": 64}
    },
}  # fmt: skip


def write_configs(folder: Path) -> Path:
    """Writes the tiny configs with smaller sizes: the same stages and options."""
    folder.mkdir()
    for file in TINY.glob("*.yaml"):
        tree = yaml.safe_load(file.read_text(encoding="utf-8")) or {}
        for section, values in SMALLER.get(file.stem, {}).items():
            tree.setdefault(section, {}).update(values)
        (folder / file.name).write_text(yaml.safe_dump(tree), encoding="utf-8")
    return folder


def quickstart(configs: Path, cwd: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "magicbert", "quickstart", "--configs", str(configs)]
    return subprocess.run(
        [*command, "--run.name", "chain", *words],
        cwd=cwd, capture_output=True, text=True, check=False, timeout=500,
    )  # fmt: skip


@pytest.mark.distributed
def test_quickstart_runs_the_whole_chain_and_only_once(tmp_path):
    configs = write_configs(tmp_path / "configs")
    done = quickstart(configs, tmp_path)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]

    run = tmp_path / "runs" / "chain"
    for stage in RESULTS.keys() & set(CHAIN):
        file, schema = RESULTS[stage]
        folder = run / FOLDERS.get(stage, stage)
        read_record(folder / file, schema)
        assert (folder / "config.yaml").exists()
        assert json.loads((folder / "environment.json").read_text())["packages"]["torch"]
    for name in ("config.json", "model.safetensors", "tokenizer.json", "README.md"):
        assert (run / "export" / name).exists()
    page = (run / "report.html").read_text(encoding="utf-8")
    assert "Not run" not in page
    assert page.count("<figure>") >= 5

    records = read_run(run)
    (pretrained,) = records.finished("pretrain")
    assert pretrained.config["launch"]["num_ranks"] == 2
    assert pretrained.result is not None
    assert pretrained.result["finished"]
    assert pretrained.series("train", "loss")[0] == [2, 4, 6]
    winner = read_record(run / "search" / "architectures.json", RESULTS["search"][1])["results"][0]
    retrained = read_record(run / "retrain" / "result.json", RESULTS["retrain"][1])
    assert retrained["architecture"] == winner["architecture"]

    shown = done.stdout
    for number, verb in enumerate(CHAIN, start=1):
        assert f"{number}/{len(CHAIN)} {verb}" in shown
    assert winner["architecture"] in shown.split("8/8 report")[1]
    assert "report.html" in shown
    assert "export" in shown

    before = {file: file.stat().st_mtime_ns for file in run.glob("*/*/model.safetensors")}
    again = quickstart(configs, tmp_path)
    assert again.returncode == 0, again.stderr[-3000:]
    assert before == {file: file.stat().st_mtime_ns for file in run.glob("*/*/model.safetensors")}
    assert "analysis is finished already" in again.stdout + again.stderr
    assert "step 2/6" not in again.stdout, "a finished stage was run again"


def test_every_file_is_checked_before_anything_starts(tmp_path):
    configs = write_configs(tmp_path / "configs")
    (configs / "search.yaml").write_text("search: {num_roundz: 1}\n")
    (configs / "finetune.yaml").write_text("finetune: {tasks: []}\n")
    (configs / "export.yaml").unlink()
    done = quickstart(configs, tmp_path)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert "3 problems" in done.stderr
    for text in ("search.yaml: search.num_roundz", "finetune.yaml: finetune.tasks", "export.yaml"):
        assert text in done.stderr
    assert not (tmp_path / "runs").exists()
