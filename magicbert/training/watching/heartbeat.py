"""One small file per rank that says what the rank is doing and that it lives.

The files lie in the stage's folder, which all ranks see, so that a rank that is stopped, or whose
interpreter is held by a library, can be named by the others: its file no longer changes.
"""

from __future__ import annotations

import dataclasses
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

FOLDER = "heartbeats"
# Files keep their size: a full disk cannot stop a heart.
FILE_BYTES = 512


@dataclass
class Pulse:
    """What this process is doing; there is one per process, `PULSE`.

    Attributes:
        phase: ``join``, ``start``, ``step``, ``evaluate``, ``save`` or ``finish``.
        step: optimizer steps made.
        since: clock at the beginning of the phase, or of the step in phase ``step``.
    """

    phase: str = "start"
    step: int = 0
    since: float = dataclasses.field(default_factory=time.monotonic)

    def enter(self, phase: str, step: int | None = None) -> None:
        """Begins a phase, or another step of the same one."""
        self.phase, self.since = phase, time.monotonic()
        self.step = self.step if step is None else step

    @contextmanager
    def during(self, phase: str) -> Iterator[None]:
        """Is in a phase while the block runs, then begins the former one anew."""
        former = self.phase
        self.enter(phase)
        try:
            yield
        finally:
            self.enter(former)

    @property
    def seconds(self) -> float:
        """Time in the phase so far."""
        return time.monotonic() - self.since


PULSE = Pulse()


@dataclass(frozen=True)
class Heartbeat:
    """The content of a rank's file.

    Attributes:
        rank: of the process.
        num_ranks: how many ranks it believes there are.
        host: where it runs.
        pid: its process there.
        born: start of that process in the kernel's ticks, which tells it from a later one.
        started: wall clock at its first beat, in seconds.
        count: beats so far.
        phase: what it is doing.
        step: optimizer steps made.
        code: exit code, once it has left by its own will.
        word: what it said when it left.
    """

    rank: int
    num_ranks: int
    host: str
    pid: int
    born: int
    started: float
    count: int
    phase: str
    step: int
    code: int | None = None
    word: str = ""

    @classmethod
    def first(cls, rank: int, num_ranks: int) -> Heartbeat:
        """Returns the beat that a process begins with."""
        pid = os.getpid()
        _, born = process_state(pid)
        return cls(
            rank, num_ranks, socket.gethostname(), pid, born, time.time(), 0,
            PULSE.phase, PULSE.step,
        )  # fmt: skip

    @property
    def is_here(self) -> bool:
        """Whether the rank runs on this host, where its process can be looked at."""
        return self.host == socket.gethostname()

    @property
    def state(self) -> str:
        """The kernel's letter for the process: ``T`` is stopped; ``""`` is gone or a zombie."""
        letter, born = process_state(self.pid)
        return letter if born == self.born and letter != "Z" else ""

    @property
    def place(self) -> str:
        """Names the rank for a message."""
        return f"rank {self.rank} (process {self.pid} on {self.host})"

    @property
    def work(self) -> str:
        """Says what the rank is doing."""
        return f"phase {self.phase}, step {self.step}"


class HeartbeatFile:
    """The file of this rank; an error in writing it never harms the run.

    Args:
        folder: of all ranks' files.
        beat: the first beat.
    """

    def __init__(self, folder: Path, beat: Heartbeat) -> None:
        self.path = file_of(folder, beat.rank)
        self.beat = beat
        self._write()

    def write(self, code: int | None = None, word: str = "") -> None:
        """Writes the next beat with what `PULSE` says; with a code it is the last one."""
        if self.beat.code is not None:
            return
        self.beat = dataclasses.replace(
            self.beat, count=self.beat.count + 1, phase=PULSE.phase, step=PULSE.step,
            code=code, word=word[:200],
        )  # fmt: skip
        self._write()

    def _write(self) -> None:
        text = json.dumps(dataclasses.asdict(self.beat)).encode()[:FILE_BYTES]
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT, 0o644)
            try:
                os.pwrite(descriptor, text.ljust(FILE_BYTES), 0)
            finally:
                os.close(descriptor)
        except OSError:
            return


def file_of(folder: Path, rank: int) -> Path:
    """Returns the file of a rank."""
    return folder / f"rank-{rank:05d}.json"


def read_heartbeats(folder: Path) -> dict[int, Heartbeat]:
    """Returns the ranks that have a readable file; a torn one is read the next time."""
    beats = {}
    for file in sorted(folder.glob("rank-*.json")):
        try:
            beat = Heartbeat(**json.loads(file.read_bytes()))
        except (OSError, ValueError, TypeError):
            continue
        beats[beat.rank] = beat
    return beats


def process_state(pid: int) -> tuple[str, int]:
    """Returns a process's state letter and birth; ``("", 0)`` if there is no such process."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return "", 0
    # The second field is the program's name in brackets and may hold anything.
    fields = text.rpartition(")")[2].split()
    return fields[0], int(fields[19])
