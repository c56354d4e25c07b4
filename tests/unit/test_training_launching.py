"""What is found before any rank starts, and how ranks are started."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import subprocess
import sys
import threading
from importlib import metadata
from pathlib import Path

import pytest

from magicbert.config.sections import LaunchSection
from magicbert.errors import UserError
from magicbert.training.starting import (
    environment,
    launching,
    operator_build,
    rendezvous,
    versions,
)
from magicbert.training.starting.launching import host_command, hostfile_command, threads_per_rank


def test_an_untested_deepspeed_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metadata, "version", lambda name: "0.20.1")
    with pytest.raises(UserError, match=r"deepspeed 0\.20\.1 .* proven on: 0\.19\.8"):
        versions.check_deepspeed_version()


def test_the_installed_deepspeed_is_a_tested_one() -> None:
    versions.check_deepspeed_version()


@pytest.mark.skipif(environment.accelerator().device_name() != "cpu", reason="needs a CPU")
def test_fp16_on_a_cpu_is_refused_and_the_others_are_not() -> None:
    with pytest.raises(UserError, match="use one of: fp32, bf16"):
        environment.check_precision("fp16")
    environment.check_precision("fp32")
    environment.check_precision("bf16")


def test_missing_build_tools_are_all_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(UserError, match=r"(?s)C\+\+ compiler.*ninja"):
        operator_build.check_build_tools()


def test_a_single_rank_leaves_the_environment_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in environment.RANK_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MASTER_PORT", "1")
    with environment.single_rank():
        assert environment.is_launched()
        assert os.environ["MASTER_PORT"] != "1"
    assert not environment.is_launched()
    assert os.environ["MASTER_PORT"] == "1"


def test_the_command_for_this_host() -> None:
    launch = LaunchSection(num_ranks=3, master_port=4321, threads_per_rank=2)
    command = host_command(launch, 3)
    (world,) = [word.split("=", 1)[1] for word in command if word.startswith("--world_info")]
    assert json.loads(base64.urlsafe_b64decode(world)) == {"localhost": [0, 1, 2]}
    assert "--master_port=4321" in command


def test_a_hostfile_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"launch\.hostfile"):
        hostfile_command(LaunchSection(hostfile=str(tmp_path / "hosts")))


def test_ranks_share_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert threads_per_rank(LaunchSection(threads_per_rank=5), 2) == 5
    assert threads_per_rank(LaunchSection(), 10_000) == 1
    cores = len(os.sched_getaffinity(0))
    assert threads_per_rank(LaunchSection(), 1) == cores


@pytest.mark.parametrize(("wished", "expected"), [("3", 3), ("0", None), ("", None), ("2,1", None)])
def test_the_environment_sets_the_threads_that_the_configuration_leaves_open(
    wished: str, expected: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", wished)
    assert threads_per_rank(LaunchSection(threads_per_rank=5), 1) == 5
    found = threads_per_rank(LaunchSection(), 1)
    assert found == (expected or len(os.sched_getaffinity(0)))


def test_a_lock_left_by_a_killed_build_is_removed(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    lock.touch()
    operator_build.clear_stale_lock(lock, patience=0.2)
    assert not lock.exists()


def test_a_lock_that_goes_by_itself_is_waited_for(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    lock.touch()
    was_there: list[bool] = []

    def finish_build() -> None:
        was_there.append(lock.exists())
        lock.unlink(missing_ok=True)

    timer = threading.Timer(0.3, finish_build)
    timer.start()
    operator_build.clear_stale_lock(lock, patience=60.0)
    assert was_there == [True]


def test_one_process_at_a_time_even_after_a_kill(tmp_path: Path) -> None:
    path = tmp_path / "own.lock"
    code = (
        "import sys, time, pathlib\n"
        "from magicbert.training.starting.operator_build import exclusive\n"
        "with exclusive(pathlib.Path(sys.argv[1])):\n    print('held', flush=True); time.sleep(60)"
    )
    holder = subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE)
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"held\n"
    with path.open("a") as stream, pytest.raises(BlockingIOError):
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    holder.kill()
    holder.wait()
    with operator_build.exclusive(path):
        pass


def test_a_port_that_is_taken_is_told() -> None:
    with rendezvous.listening_socket("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=rf"launch\.master_port: .*127\.0\.0\.1:{port}"):
            rendezvous.listening_socket("127.0.0.1", port)


def test_ranks_on_a_host_are_what_the_launcher_says(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LOCAL_SIZE", "LOCAL_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    assert launching.ranks_on_this_host(16) == 16
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "8")
    assert launching.ranks_on_this_host(16) == 8
    monkeypatch.setenv("LOCAL_SIZE", "4")
    assert launching.ranks_on_this_host(16) == 4
