"""One process at a time in a stage's folder; a killed one leaves nothing behind.

The lock belongs to the system and ends with its process, however that ends. The file beside the
folder says who holds it; after a kill it stays there, and means nothing.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from magicbert.errors import UserError

LOGGER = logging.getLogger("magicbert")
HELD = {errno.EACCES, errno.EAGAIN}


def lock_file(folder: Path) -> Path:
    """Returns the file whose lock guards a folder."""
    return folder.with_name(f".{folder.name}.lock")


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Keeps other processes out of a folder while the block runs.

    Processes that are forked in the block do not hold the lock. A file system without locks is
    no reason to stop: a warning says that nothing guards the folder.

    Raises:
        UserError: another process is at work there.
    """
    file = lock_file(folder)
    file.parent.mkdir(parents=True, exist_ok=True)
    with open_locked(file, folder) as stream:
        stream.truncate(0)
        stream.write(f"process {os.getpid()} on {socket.gethostname()}")
        stream.flush()
        try:
            yield
        finally:
            file.unlink(missing_ok=True)


def open_locked(file: Path, folder: Path) -> TextIO:
    """Opens the file that guards a folder and locks it; a holder that leaves removes it."""
    while True:
        stream = file.open("a+", encoding="utf-8")
        try:
            take_lock(stream, folder)
        except UserError:
            stream.close()
            raise
        if is_open_as(file, stream):
            return stream
        stream.close()


def is_open_as(file: Path, stream: TextIO) -> bool:
    """Returns whether a name still means the file that was opened."""
    try:
        return os.path.samestat(file.stat(), os.fstat(stream.fileno()))
    except FileNotFoundError:
        return False


def take_lock(stream: TextIO, folder: Path) -> None:
    """Takes the lock of an open file or raises `UserError` that names its holder."""
    try:
        fcntl.lockf(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in HELD:
            LOGGER.warning("%s cannot be locked (%s): see to it that no other process "
                           "works there", folder, error.strerror)  # fmt: skip
            return
        stream.seek(0)
        holder = stream.read().strip() or "another process"
        raise UserError(
            f"{folder}: {holder} is at work there; wait for its end, or give another "
            "run.label or run.name"
        ) from error


def check_free(folder: Path) -> None:
    """Raises `UserError` if another process is at work in a folder, before anything is started."""
    if lock_file(folder).exists():
        with alone_in(folder):
            pass
