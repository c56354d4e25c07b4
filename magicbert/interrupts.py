"""Ctrl-C reaches one process: the one that the user started; it tells those that it started."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def heard_here_alone() -> Iterator[None]:
    """Starts every process of the block deaf to SIGINT, from its first instruction on.

    A terminal sends SIGINT to all processes of a command. One that is still importing has no
    handler yet and would print a traceback of its own. The mask of blocked signals passes on to
    what is started here. A SIGINT of this thread waits until the block is over.
    """
    former = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, former)
