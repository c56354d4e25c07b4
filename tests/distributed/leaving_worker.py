"""What the ranks of test_leaving.py run: work that ends while something waits to abort the exit."""

from __future__ import annotations

import atexit
import os
import sys
import threading
import time
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from magicbert import __main__ as program


class AbortsAtTheEnd:
    """Does what a late thread of gloo does: aborts while the interpreter goes down."""

    abort = staticmethod(os.abort)  # still at hand when the modules' names are gone

    def __del__(self) -> None:
        self.abort()


KEPT = AbortsAtTheEnd()


def finishes(rank: int, num_ranks: int, folder: Path, arguments: Any) -> str:
    """Works after a collective; files and output are left for the exit to write."""
    dist.init_process_group("gloo")
    dist.all_reduce(torch.ones(1))
    return work(rank, folder)


def work(rank: int, folder: Path) -> str:
    """Leaves one file to a thread, one to a handler of the exit, and a line to a buffer."""
    thread, handler = (folder / f"{name}-{rank}.txt" for name in ("thread", "handler"))

    def write_late() -> None:
        time.sleep(0.5)
        thread.write_text("the thread was waited for")

    threading.Thread(target=write_late).start()
    atexit.register(lambda: handler.write_text("the handler ran"))
    print("the last word", end="")
    return f"rank {rank} has worked"


def runs(folder: Path, code: int | None, *, is_joined: bool) -> None:
    """Runs the program with work that ends in an exit code, or by returning (``None``)."""

    def main() -> None:
        if is_joined:
            finishes(0, 1, folder, None)
        else:
            work(0, folder)
        if code is not None:
            sys.exit(code)

    program.main = main
    program.run()
