"""Signals: the first one asks for a stop between two steps, a second one leaves at once.

Python runs signal handlers between two instructions of the main thread, so a rank that waits in a
collective would not hear a second signal. The bytes that the interpreter writes to its wake-up
socket at the moment of a signal are read by a thread of its own.
"""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from magicbert.training.watching.exit_codes import EXIT_INTERRUPTED, EXIT_TERMINATED
from magicbert.training.watching.heartbeat import PULSE

# Launchers and terminals send a signal to several processes that pass it on to each other.
ECHO_SECONDS = 1.0


class Interruption:
    """Turns SIGTERM and SIGINT into a flag that is looked at between steps.

    - While the ranks are joining there is nothing to save: the first signal leaves at once.
    - A later signal within a second of the first one, or of the moment at which the ranks agreed
      to stop, is its echo. Any other one leaves at once, without saving.
    - Once the run is saved (`settle`), signals mean nothing any more.

    Use as a context manager: the former handlers come back at its end.

    Args:
        leave: ends the process with an exit code.
    """

    SIGNALS = (signal.SIGTERM, signal.SIGINT)

    def __init__(self, leave: Callable[[int], Any] = os._exit) -> None:
        self.is_requested = False
        self._leave = leave
        self._echoes_of: list[float] = []
        self._is_settled = False
        self._former: dict[int, Any] = {}

    def request(self, number: int = 0, frame: FrameType | None = None) -> None:
        """Asks for a stop after the current step; also the signal handler."""
        self.is_requested = True

    def agreed(self) -> None:
        """Notes that all ranks know of the stop: from now on the others' launchers echo it."""
        self._echoes_of.append(time.monotonic())

    def settle(self) -> None:
        """Says that everything is saved and the process is about to end."""
        self._is_settled = True

    def receive(self) -> None:
        """Judges a signal at the moment it comes."""
        now = time.monotonic()
        is_first, self.is_requested = not self._echoes_of, True
        if self._is_settled or any(now - moment < ECHO_SECONDS for moment in self._echoes_of):
            return
        if PULSE.phase == "join":
            self._leave(EXIT_INTERRUPTED)
        if not is_first:
            self._leave(EXIT_TERMINATED)
        self._echoes_of.append(now)

    def __enter__(self) -> Interruption:
        self._reader, self._writer = socket.socketpair()
        self._writer.setblocking(False)
        self._former = {number: signal.signal(number, self.request) for number in self.SIGNALS}
        self._former_socket = signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        threading.Thread(target=self._listen, name="magicbert-signals", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        signal.set_wakeup_fd(self._former_socket)
        for number, handler in self._former.items():
            signal.signal(number, handler)
        self._writer.close()

    def _listen(self) -> None:
        with self._reader:
            while received := self._reader.recv(64):
                for number in received:
                    if number in self.SIGNALS:
                        self.receive()


class Active:
    """The interruption of a process that is guarded from its start; ``None`` in others."""

    interruption: Interruption | None = None


@contextmanager
def listening() -> Iterator[Interruption]:
    """Gives the process's interruption, or one for the block alone."""
    if Active.interruption is not None:
        yield Active.interruption
        return
    with Interruption() as interruption:
        yield interruption


@contextmanager
def listening_from_the_start(leave: Callable[[int], Any]) -> Iterator[Interruption]:
    """Listens in the whole block, which is the whole life of a rank."""
    with Interruption(leave) as interruption:
        Active.interruption = interruption
        try:
            yield interruption
        finally:
            Active.interruption = None
