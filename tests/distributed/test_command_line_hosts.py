"""`magicbert pretrain` by every starter: two hosts without ssh and by ssh, torchrun; one result."""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from host_launching import (
    PORT,
    launch_script,
    ssh_between,
    start,
    why_no_ssh,
    write_hostfile,
)
from hosts import Host, two_hosts, why_no_hosts
from ranks import rank_environment

from magicbert.trail import read_metrics

pytestmark = [pytest.mark.distributed, pytest.mark.slow]
TIMEOUT = 400
WORDS = [f"word{number}" for number in range(16)]
PREPARE = {
    "run.name": "toy", "corpus.sources": "[corpus.txt]", "corpus.valid_fraction": "0.1",
    "tokenizer.vocab_size": "100", "shards.length": "16",
}  # fmt: skip
PRETRAIN = {
    "run.name": "toy",
    # Sums over a rank's threads depend on their number.
    "launch.threads_per_rank": "1",
    "space.preset": "custom",
    "space.num_layers": "2",
    "space.candidates": "[ffn, conv3]",
    "model.hidden_size": "16",
    "model.max_length": "16",
    "optimizer.warmup_steps": "0",
    "training.rows_per_step": "8",
    "training.rows_per_micro_batch": "4",
    "training.precision": "fp32",
    "training.log_every": "1",
    "training.num_steps": "6",
}


def options(settings: dict[str, str], **extra: str) -> list[str]:
    return [word for name, value in {**settings, **extra}.items() for word in (f"--{name}", value)]


def finish(processes: Sequence[subprocess.Popen[str]]) -> str:
    """Waits for all; returns what they printed."""
    outputs = [process.communicate(timeout=TIMEOUT)[0] for process in processes]
    text = "\n".join(outputs)
    assert [process.returncode for process in processes] == [0] * len(processes), text[-6000:]
    return text


def here(folder: Path, words: list[str]) -> subprocess.Popen[str]:
    """Starts a command on this machine."""
    environment = rank_environment(0, 1, 0)
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        environment.pop(name)
    return subprocess.Popen(
        words, cwd=folder, env=environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small prepared run."""
    place = tmp_path_factory.mktemp("hosts")
    draw = random.Random(0)
    documents = (" ".join(draw.choices(WORDS, k=40)) for _ in range(200))
    (place / "corpus.txt").write_text("\n\n".join(documents))
    finish([here(place, [sys.executable, "-m", "magicbert", "prepare", *options(PREPARE)])])
    return place


def steps_of(folder: Path, label: str) -> list[Any]:
    """Returns what every step of a run logged, without clocks."""
    rows = read_metrics(folder / "runs" / "toy" / f"pretrain-{label}")
    assert len([row for row in rows if row["kind"] == "train"]) == 6
    clocks = ("time", "tokens_per_second")
    return [{name: row[name] for name in row if name not in clocks} for row in rows]


@pytest.fixture(scope="module")
def expected(folder: Path) -> list[Any]:
    """What two ranks on one host log."""
    more = {"run.label": "one-host", "launch.num_ranks": "2"}
    command = [sys.executable, "-m", "magicbert", "pretrain", *options(PRETRAIN, **more)]
    finish([here(folder, command)])
    return steps_of(folder, "one-host")


@pytest.fixture
def hosts() -> Iterator[tuple[Host, Host]]:
    reason = why_no_hosts()
    if reason:
        pytest.skip(reason)
    with two_hosts() as pair:
        yield pair


def test_the_deepspeed_starter_without_ssh(
    folder: Path, expected: list[Any], hosts: tuple[Host, Host]
) -> None:
    words = options(PRETRAIN, **{"run.label": "no-ssh"})
    hostfile = str(write_hostfile(folder, hosts))
    command = ["bash", launch_script("deepspeed.sh"), hostfile, "pretrain", *words]
    meeting = {"MASTER_ADDR": hosts[0].address, "MASTER_PORT": PORT}
    output = finish(
        [
            start(host, folder, command, HOST_NUMBER=str(number), **meeting)
            for number, host in enumerate(hosts)
        ]
    )
    assert output.count("2 ranks") == 1
    assert steps_of(folder, "no-ssh") == expected


def test_the_hostfile_by_ssh(
    folder: Path, expected: list[Any], hosts: tuple[Host, Host], tmp_path: Path
) -> None:
    reason = why_no_ssh()
    if reason:
        pytest.skip(reason)
    # What ssh does not pass on.
    environment = rank_environment(0, 1, 0) | hosts[0].environment()
    names = ("PYTHONPATH", "GLOO_SOCKET_IFNAME", "DS_ACCELERATOR", "TORCH_EXTENSIONS_DIR")
    lines = [f"{name}={environment[name]}" for name in names if name in environment]
    (folder / ".deepspeed_env").write_text("\n".join(lines) + "\n")
    more = {"run.label": "ssh", "launch.hostfile": str(write_hostfile(folder, hosts))}
    command = [sys.executable, "-m", "magicbert", "pretrain", *options(PRETRAIN, **more)]
    with ssh_between(hosts, tmp_path / "ssh") as programs:
        path = f"{programs}:{environment['PATH']}"
        finish([start(hosts[0], folder, command, PATH=path)])
    assert steps_of(folder, "ssh") == expected


def test_the_torchrun_starter(folder: Path, expected: list[Any]) -> None:
    words = options(PRETRAIN, **{"run.label": "torchrun"})
    output = finish([here(folder, ["bash", launch_script("torchrun.sh"), "pretrain", *words])])
    assert output.count("2 ranks") == 1
    assert steps_of(folder, "torchrun") == expected
