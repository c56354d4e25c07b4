"""The ranks of a search: this process alone, or several that a launcher starts."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar, cast

import torch

from magicbert.config.roots import SearchConfig
from magicbert.errors import UserError
from magicbert.training.ranks import Ranks
from magicbert.training.starting.environment import (
    is_launched,
    join_process_group,
    num_devices,
    prepare_operators,
)
from magicbert.training.starting.launching import (
    host_command,
    hostfile_command,
    ranks_on_this_host,
    set_threads,
    start_launcher,
)
from magicbert.training.starting.versions import check_deepspeed_version
from magicbert.training.watching.guarding import guarded

LOGGER = logging.getLogger("magicbert")
Decision = TypeVar("Decision")


def on_ranks(config: SearchConfig, folder: Path, work: Callable[[Ranks | None], None]) -> None:
    """Runs ``work`` on every rank, starting the ranks where no launcher has.

    Args:
        config: of the search.
        folder: the stage's folder.
        work: is given the ranks; ``None`` = this process alone.
    """
    launch = config.launch
    if is_launched():
        as_rank(config, folder, work)
        return
    if launch.hostfile:
        check_deepspeed_version()
        start_launcher("search", config, folder, hostfile_command(launch), launch.num_ranks)
        return
    num_ranks = 1 if launch.num_ranks == 1 else num_devices(launch.num_ranks)
    if num_ranks > 1:
        check_deepspeed_version()
        prepare_operators()
        start_launcher("search", config, folder, host_command(launch, num_ranks), num_ranks)
        return
    if launch.threads_per_rank:
        torch.set_num_threads(launch.threads_per_rank)
    work(None)


def as_rank(config: SearchConfig, folder: Path, work: Callable[[Ranks | None], None]) -> None:
    """Works in one of several ranks, each on its own device; the first one reports."""
    rank, num_ranks = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    if rank:
        LOGGER.setLevel(logging.WARNING)
    with guarded(folder, rank, num_ranks, config.launch):
        check_deepspeed_version()
        if torch.cuda.is_available():
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        set_threads(config.launch, ranks_on_this_host(num_ranks))
        ranks = join_process_group(config.launch)
        work(ranks)
        # The launcher ends every rank when the first of them leaves.
        ranks.barrier("end")


def decided_by_first(ranks: Ranks | None, decide: Callable[[], Decision]) -> Decision:
    """Returns, on every rank, what the first one decides.

    Raises:
        UserError: on every rank, if it does so on the first one.
    """
    if ranks is None:
        return decide()
    decision: Decision | None = None
    problem = None
    if ranks.is_first:
        try:
            decision = decide()
        except UserError as error:
            problem = str(error)
    ranks.raise_together(problem)
    return cast(Decision, ranks.gather(decision)[0])
