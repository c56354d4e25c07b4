"""Kills or fails a process at a chosen system call, by strace."""

from __future__ import annotations

import collections
import functools
import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

# What a save asks of the system; a kill comes before the call takes effect.
CALLS = (
    "openat", "open", "write", "pwrite64", "writev", "ftruncate", "fsync", "fdatasync", "rename",
    "renameat", "renameat2", "unlink", "unlinkat", "rmdir", "mkdir", "mkdirat", "close",
)  # fmt: skip


@functools.cache
def why_not() -> str | None:
    """Returns why processes cannot be traced here; ``None`` = they can."""
    if shutil.which("strace") is None:
        return "strace is not installed"
    done = subprocess.run(["strace", "-q", "-o", os.devnull, "true"], capture_output=True)
    return None if done.returncode == 0 else "strace may not trace processes here"


class Tracer:
    """strace on the main thread of a process that has stopped itself; goes on when attached.

    Args:
        pid: the process.
        output: file for the calls.
        inject: such as ``fsync:signal=SIGKILL:when=2``; empty = only look.
    """

    def __init__(self, pid: int, output: Path, inject: str = "") -> None:
        wait_until(lambda: state_of(pid) == "T", f"{pid} has not stopped")
        command = ["strace", "-q", "-y", "-e", f"trace={','.join(CALLS)}", "-o", str(output)]
        if inject:
            command += ["-e", f"inject={inject}"]
        self._process = subprocess.Popen([*command, "-p", str(pid)], stderr=subprocess.PIPE)
        wait_until(lambda: status_of(pid).get("TracerPid") != "0", f"{pid} is not traced")
        os.kill(pid, signal.SIGCONT)

    def close(self) -> None:
        """Waits for the end of strace, which comes with the end of the process."""
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def wait_until(condition: object, problem: str, seconds: float = 30) -> None:
    """Waits for a condition."""
    assert callable(condition)
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() >= deadline:
            raise TimeoutError(problem)
        time.sleep(0.002)


def status_of(pid: int) -> dict[str, str]:
    """Returns the lines of ``/proc/PID/status``."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def state_of(pid: int) -> str:
    """Returns ``R``, ``S``, ``T`` (stopped), ``Z`` and so on."""
    return status_of(pid)["State"][0]


def crash_points(trace: Path, root: Path) -> list[tuple[str, int]]:
    """Returns every call on files below a folder, as its name and its number among such calls.

    Numbers count all calls of one name, which is how strace counts.
    """
    counts: collections.Counter[str] = collections.Counter()
    points = []
    for line in trace.read_text(errors="replace").splitlines():
        match = re.match(r"(\w+)\(", line)
        if match is None:
            continue
        counts[match[1]] += 1
        if str(root) in line:
            points.append((match[1], counts[match[1]]))
    return points
