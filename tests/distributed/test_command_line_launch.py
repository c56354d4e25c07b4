"""`magicbert pretrain` with two ranks, from the shell: stopped by SIGTERM, then finished."""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from magicbert.records import read_record
from magicbert.trail import read_metrics

pytestmark = [pytest.mark.distributed, pytest.mark.slow]
WORDS = [f"word{number}" for number in range(16)]
SETTINGS = {
    "run.name": "toy",
    "space.preset": "custom",
    "space.num_layers": "2",
    "space.candidates": "[ffn, conv3]",
    "model.hidden_size": "16",
    "model.max_length": "16",
    "alignment.num_blocks": "2",
    "optimizer.warmup_steps": "0",
    "training.rows_per_step": "8",
    "training.rows_per_micro_batch": "4",
    "training.precision": "fp32",
    "training.log_every": "5",
    "launch.num_ranks": "2",
}


def magicbert(verb: str, folder: Path, **settings: str) -> subprocess.Popen[str]:
    environment = {name: v for name, v in os.environ.items() if not name.startswith("MASTER")}
    options = [word for name, value in settings.items() for word in (f"--{name}", value)]
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    return subprocess.Popen(
        [sys.executable, "-m", "magicbert", verb, *options],
        cwd=folder, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small prepared run."""
    place = tmp_path_factory.mktemp("launch")
    draw = random.Random(0)
    documents = (" ".join(draw.choices(WORDS, k=40)) for _ in range(200))
    (place / "corpus.txt").write_text("\n\n".join(documents))
    options = {
        "run.name": "toy", "corpus.sources": "[corpus.txt]", "corpus.valid_fraction": "0.1",
        "tokenizer.vocab_size": "100", "shards.length": "16",
    }  # fmt: skip
    process = magicbert("prepare", place, **options)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output
    return place


def test_a_stopped_run_goes_on_with_the_same_command(folder: Path) -> None:
    stage = folder / "runs" / "toy" / "pretrain"
    settings = {**SETTINGS, "training.num_steps": "100000", "optimizer.schedule": "constant"}
    first = magicbert("pretrain", folder, **settings)
    deadline = time.monotonic() + 400
    while not read_metrics(stage) and first.poll() is None and time.monotonic() < deadline:
        time.sleep(0.2)
    first.send_signal(signal.SIGTERM)
    output, _ = first.communicate(timeout=120)
    assert first.returncode == 75, output
    assert "give the same command again" in output
    stopped = read_record(stage / "result.json", "magicbert/training-result/1")
    assert not stopped["finished"]
    assert not (stage / "supernet").exists()

    last_step = stopped["steps"] + 10
    settings["training.num_steps"] = str(last_step)
    second = magicbert("pretrain", folder, **settings)
    output, _ = second.communicate(timeout=240)
    assert second.returncode == 0, output
    assert output.count("resuming from") == 1
    finished = read_record(stage / "result.json", "magicbert/training-result/1")
    assert finished["finished"]
    assert finished["steps"] == last_step
    assert (stage / "supernet" / "model.safetensors").is_file()

    third = magicbert("pretrain", folder, **settings)
    output, _ = third.communicate(timeout=120)
    assert third.returncode == 0
    assert "finished already" in output


def test_a_run_goes_on_with_other_ranks_but_never_begins_anew(folder: Path) -> None:
    stage = folder / "runs" / "toy" / "pretrain-other"
    shape = {"run.label": "other", "optimizer.schedule": "constant", "training.log_every": "1"}

    def train(num_steps: int, code: int, **settings: str) -> str:
        options = {**SETTINGS, **shape, "training.checkpoint_every": "3", **settings}
        process = magicbert("pretrain", folder, **options, **{"training.num_steps": str(num_steps)})
        output, _ = process.communicate(timeout=240)
        assert process.returncode == code, output
        return output

    train(6, 0)
    states = sorted((stage / "checkpoints").glob("step-*/state.json"))
    assert len(states) == 2
    for state in states:
        state.rename(state.with_suffix(".away"))
    output = train(9, 2)
    assert output.count("no checkpoint there verifies") == 1
    assert "Traceback" not in output
    for state in states:
        state.with_suffix(".away").rename(state)
    output = train(9, 0, **{"launch.num_ranks": "1", "training.zero_stage": "0"})
    assert "cut anew" in output
    made = [row["step"] for row in read_metrics(stage) if row["kind"] == "train"]
    assert made == list(range(1, 10))


def test_stage_3_gives_the_losses_of_stage_1(folder: Path) -> None:
    settings = {**SETTINGS, "training.num_steps": "8", "training.log_every": "1"}
    losses = {}
    for stage in ("1", "3"):
        label = {"run.label": f"zero{stage}", "training.zero_stage": stage}
        process = magicbert("pretrain", folder, **settings, **label)
        output, _ = process.communicate(timeout=240)
        assert process.returncode == 0, output
        rows = read_metrics(folder / "runs" / "toy" / f"pretrain-zero{stage}")
        losses[stage] = [row["loss"] for row in rows if row["kind"] in ("train", "valid")]
    assert len(losses["1"]) == 9
    assert losses["3"] == pytest.approx(losses["1"], abs=1e-5)


def test_a_mistake_is_told_once_and_before_any_rank_starts(folder: Path) -> None:
    settings = {**SETTINGS, "run.label": "wrong", "model.max_length": "8"}
    process = magicbert("pretrain", folder, **settings)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 2
    assert output.count("model.max_length") == 1
    assert "Traceback" not in output
    assert not (folder / "runs" / "toy" / "pretrain-wrong").exists()


def test_a_killed_rank_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAGICBERT_FAULT", "loop.step=kill@rank:1,step:3")
    settings = {**SETTINGS, "run.label": "killed", "training.num_steps": "50"}
    process = magicbert("pretrain", folder, **settings)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 79, output
    assert re.search(r"magicbert: rank 0 ends: rank 1 \(process \d+ on \S+\) died", output)
    assert "Traceback" not in output


def test_ranks_that_all_freeze_are_ended(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The pause lets every rank write a heartbeat that says it is making steps.
    rules = "loop.step=sleep:2@step:3;loop.step=freeze@step:4"
    monkeypatch.setenv("MAGICBERT_FAULT", rules)
    settings = {**SETTINGS, "run.label": "frozen", "training.num_steps": "50"}
    process = magicbert("pretrain", folder, **settings, **{"launch.step_minutes": "0.1"})
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 78, output
    assert output.count("is stopped (SIGSTOP)") == 2
