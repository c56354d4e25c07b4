"""What the ranks of test_leaving.py run: work that ends while something waits to abort the exit."""

from __future__ import annotations

import atexit
import json
import os
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from magicbert.config.roots import PretrainConfig, SearchConfig
from magicbert.stages.search_ranks import as_rank
from magicbert.training.ranks import Ranks
from magicbert.training.starting.launching import run_as_rank


class AbortsAtTheEnd:
    """Does what a late thread of gloo does: aborts while the interpreter goes down."""

    abort = staticmethod(os.abort)  # still at hand when the modules' names are gone

    def __del__(self) -> None:
        self.abort()


KEPT = AbortsAtTheEnd()


def work(rank: int, folder: Path) -> str:
    """Returns what is said in the end; files and output are left for the exit to write."""
    file = folder / f"left-{rank}.txt"
    atexit.register(lambda: file.write_text("handlers of the exit ran"))
    print(f"the last word of rank {rank}", end="")  # in the buffer of standard output
    return f"rank {rank} has worked"


def finishes(rank: int, num_ranks: int, folder: Path, arguments: Any) -> str:
    """Works after a collective."""
    dist.init_process_group("gloo")
    dist.all_reduce(torch.ones(1))
    return work(rank, folder)


def trains(rank: int, num_ranks: int, folder: Path, arguments: Any) -> None:
    """Works as a rank of a training; it never returns."""

    def train() -> None:
        (folder / f"rank-{rank}.json").write_text(json.dumps(work(rank, folder)))

    run_as_rank(PretrainConfig(), folder / "stage", lambda num_ranks: None, train)


def searches(rank: int, num_ranks: int, folder: Path, arguments: Any) -> None:
    """Works as a rank of a search; it never returns."""

    def search(ranks: Ranks | None) -> None:
        (folder / f"rank-{rank}.json").write_text(json.dumps(work(rank, folder)))

    as_rank(SearchConfig(), folder / "stage", search)
