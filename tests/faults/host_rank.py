"""A rank of the toy tenant on a host of its own: network namespace and host name."""

from __future__ import annotations

import ctypes
import socket
from datetime import timedelta
from pathlib import Path
from typing import Any

import bad_wire
import toy_rank

from magicbert.training.starting import environment
from magicbert.training.watching import watchdog

CLONE_NEWUTS = 0x04000000


def run(rank: int, num_ranks: int, folder: Path, arguments: dict[str, Any]) -> None:
    """Runs a rank on host ``arguments["namespaces"][rank]``."""
    if rank in arguments.get("is_missing", ()):
        return
    namespace = arguments["namespaces"][rank]
    bad_wire.enter(namespace)
    if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWUTS) == 0:
        socket.sethostname(namespace)
    if arguments.get("is_unguarded"):
        forget_limits()
    toy_rank.run(rank, num_ranks, folder, arguments)


def forget_limits() -> None:
    """Takes the defence out: collectives wait as long as torch's gloo does, nobody watches."""
    watchdog.Watchdog._watch = lambda self: None  # type: ignore[method-assign]
    environment.set_collective_timeout = lambda launch: timedelta(minutes=30)  # type: ignore[assignment]
