"""Building DeepSpeed's CPU communication operator once, safely against kills.

DeepSpeed builds it through torch, whose lock is a plain file: a build that is killed leaves it
behind, and every later start would wait for it forever. Here one process at a time, held apart by
a lock that the system drops with its process, builds and clears what a killed build left.
"""

from __future__ import annotations

import fcntl
import logging
import os
import shutil
import sysconfig
import time
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

from magicbert.errors import UserError

LOGGER = logging.getLogger("magicbert")
TORCH_LOCK = "lock"
OWN_LOCK = "magicbert.lock"
# A rank that only loads the built operator holds torch's lock for a moment.
PATIENCE_SECONDS = 20.0


def build_comm_operator(accelerator: Any) -> None:
    """Builds the operator where it is missing, and says so; ranks then find it built.

    Args:
        accelerator: DeepSpeed's CPU accelerator.

    Raises:
        UserError: compiler or headers are missing, or the build failed.
    """
    built = operator_file(accelerator)
    with exclusive(built.with_name(OWN_LOCK)):
        clear_stale_lock(built.with_name(TORCH_LOCK), PATIENCE_SECONDS)
        if built.is_file():
            return
        check_build_tools()
        LOGGER.info("building DeepSpeed's CPU communication operator (first use only, 1-2 minutes)")
        from deepspeed.comm.torch import build_shm_op

        try:
            with redirect_stdout(StringIO()):
                build_shm_op()
        except (RuntimeError, OSError) as error:
            raise UserError(
                f"DeepSpeed's CPU communication operator did not build: {error}"
            ) from error


def operator_file(accelerator: Any) -> Path:
    """Returns where torch puts the built operator."""
    from torch.utils.cpp_extension import _get_build_directory

    name = accelerator.create_op_builder("ShareMemCommBuilder").name
    return Path(_get_build_directory(name, verbose=False)) / f"{name}.so"


@contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Runs the block in one process at a time; the lock goes with its process, however it ends."""
    with path.open("a") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def clear_stale_lock(lock: Path, patience: float) -> None:
    """Waits for torch's lock and removes it when it outlives ``patience`` seconds.

    To be called under `exclusive`: no other process builds then.
    """
    deadline = time.monotonic() + patience
    while lock.exists():
        if time.monotonic() >= deadline:
            LOGGER.warning("removing %s, left behind by a build that was killed", lock)
            lock.unlink(missing_ok=True)
            return
        time.sleep(0.05)


def check_build_tools() -> None:
    """Raises `UserError` with everything that is missing to build an operator."""
    header = Path(sysconfig.get_paths()["include"]) / "Python.h"
    missing = []
    if shutil.which(os.environ.get("CXX", "g++")) is None:
        missing.append("a C++ compiler (Debian: apt-get install g++)")
    if shutil.which("ninja") is None:
        missing.append("ninja on the PATH (pip install ninja, and activate the environment)")
    if not header.is_file():
        missing.append(f"Python's headers, {header} (Debian: apt-get install python3-dev)")
    if missing:
        listing = "\n".join(f"  - {item}" for item in missing)
        raise UserError(
            f"DeepSpeed builds an operator at its first use on a CPU; missing:\n{listing}"
        )
