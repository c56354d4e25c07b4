"""The script that asks fine-tuned models in a bare environment says what it lacks."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = "benchmarks/clean_environment.py"
SQUAD = {
    "version": "1.1",
    "data": [
        {
            "title": "Ship",
            "paragraphs": [
                {
                    "context": "The log was kept by Ada Moor.",
                    "qas": [
                        {
                            "id": "a",
                            "question": "Who kept it?",
                            "answers": [{"text": "Ada Moor", "answer_start": 20}],
                        }
                    ],
                }
            ],
        }
    ],
}


def ask(
    output: Path, stage: Path, data: Path | None, *options: str
) -> subprocess.CompletedProcess[str]:
    environment = {name: v for name, v in os.environ.items() if name != "MAGICBERT_DATA"}
    if data is not None:
        environment["MAGICBERT_DATA"] = str(data)
    command = [sys.executable, str(ROOT / SCRIPT), *options, str(output), str(stage)]
    return subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize(
    ("has_data", "message"),
    [(False, "MAGICBERT_DATA: not set"), (True, "models/squad: is missing; set finetune.keep_mod")],
)
def test_what_is_missing_is_one_message(tmp_path: Path, has_data: bool, message: str) -> None:
    (tmp_path / "squad").mkdir()
    (tmp_path / "squad" / "dev-v1.1.json").write_text(json.dumps(SQUAD))
    stage = tmp_path / "finetune-x"
    stage.mkdir()
    (stage / "config.yaml").write_text("{}\n")
    done = ask(tmp_path / "out.json", stage, tmp_path if has_data else None, "--trust_remote_code")
    assert done.returncode == 2, done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out.json").exists()


def test_code_of_models_is_run_only_where_it_is_asked_for(tmp_path: Path) -> None:
    done = ask(tmp_path / "out.json", tmp_path, tmp_path)
    assert done.returncode == 2
    assert done.stderr == (
        "the models bring code of their own: give --trust_remote_code to run it\n"
    )


@pytest.mark.skipif(importlib.util.find_spec("onnxruntime") is None, reason="the probe runs graphs")
def test_the_probe_refuses_an_environment_that_has_magicbert(tmp_path: Path) -> None:
    (tmp_path / "task.json").write_text(json.dumps({"questions": [], "windows": {}, "models": []}))
    probe = ROOT / "benchmarks" / "clean_probe.py"
    done = subprocess.run(
        [sys.executable, str(probe), str(tmp_path / "task.json"), str(tmp_path / "seen.json")],
        env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "magicbert is installed here" in done.stderr
    assert not (tmp_path / "seen.json").exists()
