"""Frees the names of the shared memory that DeepSpeed's CPU operator leaves behind.

``deepspeed_shm_comm`` gives every rank a buffer of 66 MiB in ``/dev/shm`` and never unlinks it:
each run, however it ends, keeps that memory until the machine restarts, and a later run on the same
port finds it. Once every rank has mapped all buffers the names serve nobody, and without names the
memory goes with the processes.
"""

from __future__ import annotations

import os
from pathlib import Path

FOLDER = Path("/dev/shm")


def unlink_shared_buffer(rank: int) -> None:
    """Removes the name of this rank's buffer; every rank must have joined before.

    Args:
        rank: this process; address and port are read from the environment, as the operator does.
    """
    address, port = os.environ.get("MASTER_ADDR", ""), os.environ.get("MASTER_PORT", "")
    name = f"deepspeed_allreduce_buffer_{os.getuid()}_{address}_{port}_{rank}"
    (FOLDER / Path(name).name).unlink(missing_ok=True)
