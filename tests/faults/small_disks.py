"""Disks of a few hundred kilobytes, in memory."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path


def why_not(folder: Path) -> str | None:
    """Returns why no small disk can be mounted here; ``None`` = it can."""
    if os.geteuid() != 0:
        return "only root may mount a small disk"
    (folder / "probe").mkdir(parents=True, exist_ok=True)
    try:
        with small_disk(folder / "probe", 65536):
            return None
    except (OSError, subprocess.CalledProcessError):
        return "no tmpfs may be mounted here"


@contextmanager
def small_disk(folder: Path, num_bytes: int) -> Iterator[Path]:
    """Mounts a tmpfs of a size; it goes at the end."""
    folder.mkdir(parents=True, exist_ok=True)
    options = ["-t", "tmpfs", "-o", f"size={num_bytes}", "tmpfs", str(folder)]
    subprocess.run(["mount", *options], check=True, capture_output=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True, capture_output=True)


@contextmanager
def small_disks(folder: Path, count: int, num_bytes: int) -> Iterator[list[Path]]:
    """Mounts several."""
    with ExitStack() as stack:
        yield [
            stack.enter_context(small_disk(folder / f"disk-{number}", num_bytes))
            for number in range(count)
        ]
