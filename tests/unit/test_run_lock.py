"""One process at a time in a folder, with real processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from magicbert.errors import UserError
from magicbert.run_lock import alone_in, check_free, lock_file

HOLDER = (
    "import sys, time; from pathlib import Path; from magicbert.run_lock import alone_in\n"
    "with alone_in(Path(sys.argv[1])): print('held', flush=True); time.sleep(60)"
)


@pytest.fixture
def holder(tmp_path: Path):
    command = [sys.executable, "-c", HOLDER, str(tmp_path / "stage")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_a_second_process_is_refused_and_told_who_is_there(tmp_path, holder):
    for enter in (check_free, lambda folder: alone_in(folder).__enter__()):
        with pytest.raises(UserError, match=f"process {holder.pid} on .* is at work there"):
            enter(tmp_path / "stage")


def test_the_lock_goes_with_a_process_that_is_killed(tmp_path, holder):
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait(timeout=10)
    assert lock_file(tmp_path / "stage").exists()
    with alone_in(tmp_path / "stage"):
        pass
    check_free(tmp_path / "stage")


def test_a_forked_child_that_lives_on_does_not_hold_the_lock(tmp_path):
    child = os.fork()
    if child == 0:
        grandchild = 0
        with alone_in(tmp_path / "stage"):
            grandchild = os.fork()
            if grandchild == 0:
                signal.pause()
            (tmp_path / "grandchild").write_text(str(grandchild))
            os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    try:
        check_free(tmp_path / "stage")
    finally:
        os.kill(int((tmp_path / "grandchild").read_text()), signal.SIGKILL)
