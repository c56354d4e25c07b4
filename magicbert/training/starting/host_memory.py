"""Memory of a CPU that is freed in one step and needed in the next: kept, not returned.

A step frees and asks for the same large tensors again and again. glibc gives every block of more
than 32 MB back to the system at once, and the top of its heap when much of it is free; the next
step then pays for every page anew. Where training runs on the CPU that is a sizeable share of it.
"""

from __future__ import annotations

import ctypes

# glibc's mallopt: malloc.h.
M_TRIM_THRESHOLD = -1
M_MMAP_MAX = -4
NEVER = 2**31 - 1


def keep_freed_memory() -> bool:
    """Lets freed memory stay with this process from now on.

    What the process holds at most does not change; what it holds between two steps does.

    Returns:
        Whether the C library can be told so; glibc can, others need not.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    mallopt.argtypes, mallopt.restype = (ctypes.c_int, ctypes.c_int), ctypes.c_int
    return bool(mallopt(M_MMAP_MAX, 0)) and bool(mallopt(M_TRIM_THRESHOLD, NEVER))
