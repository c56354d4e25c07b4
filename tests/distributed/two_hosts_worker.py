"""What the ranks of test_two_hosts.py run: short runs of the loop on the toy tenant."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from loop_worker import configuration, run, steps_of

from magicbert.training.starting.environment import join_process_group


def trains(rank: int, num_ranks: int, folder: Path, stages: list[int]) -> dict[str, Any]:
    """Trains at each ZeRO stage; returns all that was logged and a digest of the weights."""
    ranks = join_process_group()
    found = {}
    for stage in stages:
        place = folder / f"zero-{stage}"
        outcome, digest = run(configuration(stage, "fp32", num_ranks), place, ranks)
        # The first rank writes what the others read.
        ranks.barrier()
        found[str(stage)] = [outcome.ending, digest, steps_of(place)]
    return found
