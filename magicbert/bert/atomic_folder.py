"""A folder that is written whole or not at all, whenever its writer is stopped."""

from __future__ import annotations

import ctypes
import glob
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from magicbert.records import sync

MARK = "[0-9a-f]" * 32
AT_FDCWD, RENAME_EXCHANGE = -100, 2  # of renameat2(2)


@contextmanager
def atomic_folder(folder: Path) -> Iterator[Path]:
    """Yields an empty folder beside ``folder``, which takes its place when the block ends well.

    An older ``folder`` stays whole until then. What a writer that was killed left beside it goes
    first; two writers at a time are the caller's to keep apart.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    clear_leftovers(folder)
    aside = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}.tmp")
    aside.mkdir()
    try:
        yield aside
        sync_files(aside)
        put_in_place(aside, folder)
        sync(folder.parent)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def put_in_place(aside: Path, folder: Path) -> None:
    """Gives ``aside`` the name of ``folder``, which goes; at every instant one of them is there."""
    if not folder.exists():
        aside.rename(folder)
        return
    if exchange(aside, folder):
        return
    # A file system that cannot exchange: for an instant the older folder has another name.
    older = aside.with_suffix(".old")
    folder.rename(older)
    try:
        aside.rename(folder)
    except OSError:
        older.rename(folder)
        raise
    shutil.rmtree(older, ignore_errors=True)


def exchange(one: Path, other: Path) -> bool:
    """Swaps two names in one step; returns whether the system can do that here."""
    library = ctypes.CDLL(None, use_errno=True)
    if not hasattr(library, "renameat2"):
        return False
    names = os.fsencode(one), os.fsencode(other)
    code: int = library.renameat2(AT_FDCWD, names[0], AT_FDCWD, names[1], RENAME_EXCHANGE)
    return code == 0


def clear_leftovers(folder: Path) -> None:
    """Removes what killed writers left; an older folder that lost its name gets it back."""
    name = glob.escape(f".{folder.name}.")
    for older in folder.parent.glob(f"{name}{MARK}.old"):
        if not folder.exists():
            older.rename(folder)
        shutil.rmtree(older, ignore_errors=True)
    for aside in folder.parent.glob(f"{name}{MARK}.tmp"):
        shutil.rmtree(aside, ignore_errors=True)


def sync_files(folder: Path) -> None:
    """Brings the files of a flat folder, and their names, to the disk."""
    for path in (*folder.iterdir(), folder):
        sync(path)
