"""A folder that is written whole or not at all."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def atomic_folder(folder: Path) -> Iterator[Path]:
    """Yields an empty folder beside ``folder``, which takes its place when the block ends well.

    An older ``folder`` stays whole until then, and comes back if the exchange fails.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    mark = uuid.uuid4().hex
    aside = folder.with_name(f".{folder.name}.{mark}.tmp")
    older = folder.with_name(f".{folder.name}.{mark}.old")
    aside.mkdir()
    try:
        yield aside
        if folder.exists():
            folder.rename(older)
        try:
            aside.rename(folder)
        except OSError:
            if older.exists():
                older.rename(folder)
            raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)
        shutil.rmtree(older, ignore_errors=True)
