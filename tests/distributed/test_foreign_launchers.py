"""torchrun and `deepspeed`, started by the user: a signal leaves a checkpoint to go on from."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from ranks import free_port

from magicbert.records import read_record
from magicbert.trail import read_metrics

pytestmark = [pytest.mark.distributed, pytest.mark.slow]
BIN = Path(sys.executable).parent
OPTIONS = {
    "run.name": "toy", "space.preset": "custom", "space.num_layers": "2",
    "space.candidates": "[ffn, conv3]", "model.hidden_size": "16", "model.max_length": "16",
    "alignment.num_blocks": "2", "optimizer.warmup_steps": "0", "optimizer.schedule": "constant",
    "training.rows_per_step": "8", "training.rows_per_micro_batch": "4",
    "training.precision": "fp32", "training.log_every": "5", "training.num_steps": "100000",
}  # fmt: skip
LAUNCHERS = {
    "torchrun": ["torchrun", "--nproc-per-node", "2", "--master-port", "{port}"],
    "deepspeed": ["deepspeed", "--num_gpus", "2", "--master_port", "{port}"],
}


def start(words: list[str], folder: Path, **options: str) -> subprocess.Popen[str]:
    flat = [word for name, value in options.items() for word in (f"--{name}", value)]
    environment = {name: v for name, v in os.environ.items() if not name.startswith("MASTER")}
    environment |= {"PATH": f"{BIN}{os.pathsep}{environment['PATH']}", "DS_ACCELERATOR": "cpu"}
    return subprocess.Popen(
        [*words, *flat], cwd=folder, env=environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


def launch(launcher: str, folder: Path, **options: str) -> subprocess.Popen[str]:
    words = [word.format(port=free_port()) for word in LAUNCHERS[launcher]]
    words += ["--module", "magicbert", "pretrain"]
    return start(words, folder, **OPTIONS, **{"run.label": launcher}, **options)


def rank_process(launcher: subprocess.Popen[str], rank: int) -> psutil.Process:
    """Returns the process of a rank, found by its environment."""
    children = psutil.Process(launcher.pid).children(recursive=True)
    return next(child for child in children if child.environ().get("RANK") == str(rank))


def wait_for_steps(process: subprocess.Popen[str], stage: Path, num_rows: int) -> None:
    deadline = time.monotonic() + 240
    while len(read_metrics(stage)) < num_rows and time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.2)


def result_of(stage: Path) -> dict[str, Any]:
    return read_record(stage / "result.json", "magicbert/training-result/1")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small prepared run."""
    place = tmp_path_factory.mktemp("foreign")
    draw = random.Random(0)
    words = [f"word{number}" for number in range(16)]
    documents = (" ".join(draw.choices(words, k=40)) for _ in range(200))
    (place / "corpus.txt").write_text("\n\n".join(documents))
    options = {
        "run.name": "toy", "corpus.sources": "[corpus.txt]", "corpus.valid_fraction": "0.1",
        "tokenizer.vocab_size": "100", "shards.length": "16",
    }  # fmt: skip
    process = start([sys.executable, "-m", "magicbert", "prepare"], place, **options)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output
    return place


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_a_signal_leaves_a_checkpoint_and_the_same_command_goes_on(
    launcher: str, folder: Path
) -> None:
    stage = folder / "runs" / "toy" / f"pretrain-{launcher}"
    first = launch(launcher, folder)
    wait_for_steps(first, stage, 1)
    rank_process(first, 1).send_signal(signal.SIGTERM)
    output, _ = first.communicate(timeout=120)
    assert first.returncode != 0
    stopped = result_of(stage)
    assert not stopped["finished"]
    assert output.count("give the same command again") == 1, output
    if launcher == "torchrun":  # its report names the code of the ranks
        assert "75" in output.partition("exitcode")[2][:20], output

    num_rows = len(read_metrics(stage))
    second = launch(launcher, folder)
    wait_for_steps(second, stage, num_rows + 2)
    # DeepSpeed's command does not pass a signal on; the launcher that it starts on the host does.
    owner = psutil.Process(second.pid)
    owner = owner.children()[0] if launcher == "deepspeed" else owner
    owner.send_signal(signal.SIGTERM)
    output, _ = second.communicate(timeout=120)
    assert "resuming from" in output, output
    further = result_of(stage)
    assert further["steps"] > stopped["steps"]

    last_step = further["steps"] + 5
    options = {**OPTIONS, "training.num_steps": str(last_step), "run.label": launcher}
    command = [sys.executable, "-m", "magicbert", "pretrain"]
    third = start(command, folder, **options, **{"launch.num_ranks": "2"})
    output, _ = third.communicate(timeout=240)
    assert third.returncode == 0, output
    assert result_of(stage)["steps"] == last_step
