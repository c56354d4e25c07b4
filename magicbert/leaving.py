"""How a process that has joined others ends: without taking the interpreter down under its threads.

A thread of gloo may still let go of a tensor when the last collective has long returned. If the
interpreter is going down by then, the thread cannot have its lock and aborts the whole process
(pytorch/pytorch#190489): the launcher sees a finished run fail.
"""

from __future__ import annotations

import atexit
import logging
import os
import sys
import threading


def leave_if_joined(code: int) -> None:
    """Ends the process if it has a process group; returns at once if it has none.

    Threads are waited for, the handlers of the exit called and all output written, as by a usual
    exit.

    Args:
        code: exit code.
    """
    distributed = sys.modules.get("torch.distributed")
    if distributed is None or not distributed.is_initialized():
        return
    # The first two are what the interpreter begins its end with; they have no public names.
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
