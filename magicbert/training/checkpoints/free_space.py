"""Whether a checkpoint fits on the disk, asked before the first byte of it is written."""

from __future__ import annotations

import os
from pathlib import Path

# File headers, the record of the state and the manifest come on top of the tensors.
MARGIN = 1.1
SMALLEST = 64 * 1024


def needed_bytes(num_bytes: int) -> int:
    """Returns the room to ask for, for tensors of ``num_bytes``."""
    return max(int(num_bytes * MARGIN), SMALLEST)


def free_bytes(folder: Path) -> int | None:
    """Returns the bytes that this user can write below a folder; ``None`` = the disk won't say."""
    status = os.statvfs(folder)
    return status.f_bavail * status.f_frsize if status.f_blocks else None


def shortage(folder: Path, num_bytes: int) -> str | None:
    """Returns a line if tensors of ``num_bytes`` do not fit."""
    needed, free = needed_bytes(num_bytes), free_bytes(folder)
    if free is None or free >= needed:
        return None
    return f"no room for the checkpoint: {needed:,} bytes needed, {free:,} free in {folder}"
