"""How a rank that has done its work ends: without taking the interpreter down under its threads.

A thread of gloo may still let go of a tensor when the last collective has long returned. If the
interpreter is going down by then, the thread cannot have its lock and aborts the whole process
(pytorch/pytorch#190489): the launcher sees a finished run fail.
"""

from __future__ import annotations

import atexit
import logging
import os
import sys


def leave_finished() -> None:
    """Ends the process with exit code 0, all handlers of its exit called and all output written."""
    # What a normal exit calls, and in that order; there is no public name for it.
    atexit._run_exitfuncs()
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)
