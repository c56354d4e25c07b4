"""How fast a folder takes data, measured by writing some."""

from __future__ import annotations

import hashlib
import os
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

CHUNK = bytes(range(256)) * 4096
NUM_CHUNKS = 64  # 64 MiB


@dataclass(frozen=True)
class DiskSpeed:
    """Bytes a second.

    Attributes:
        write: written and brought to the disk.
        digest: hashed (sha256) by one process.
    """

    write: float
    digest: float


def measure_disk(folder: Path) -> DiskSpeed:
    """Writes and hashes 64 MiB where a folder is or would be; nothing stays.

    Raises:
        OSError: nothing can be written there.
    """
    place = next(path for path in (folder, *folder.absolute().parents) if path.is_dir())
    size = NUM_CHUNKS * len(CHUNK)
    with tempfile.TemporaryFile(dir=place) as stream:
        start = time.monotonic()
        for _ in range(NUM_CHUNKS):
            stream.write(CHUNK)
        stream.flush()
        os.fsync(stream.fileno())
        written = time.monotonic() - start
    start = time.monotonic()
    digest = hashlib.sha256()
    for _ in range(NUM_CHUNKS):
        digest.update(CHUNK)
    return DiskSpeed(size / written, size / (time.monotonic() - start))
