"""Which contenders are measured in which settings; needs no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from magicbert.config.sections import EngineBenchSection

MAGICBERT, ALIGNED, PLAIN = "magicbert", "magicbert, aligned", "plain"


@dataclass(frozen=True, slots=True)
class Match:
    """Who is measured against the plain model, and in which setting.

    Attributes:
        contender: ``magicbert``, ``stock``, ``ddp``, or ``plain, torch_adam``.
        stage: ZeRO stage; DistributedDataParallel stands with stage 0, which it resembles.
        ranks: number of ranks.
        candidates: operators per layer; 1 for a plain model.
    """

    contender: str
    stage: int
    ranks: int
    candidates: int

    @classmethod
    def read(cls, row: Mapping[str, Any]) -> Match:
        """Returns the match that a row of the record is about."""
        return cls(row["contender"], row["stage"], row["ranks"], row["candidates"])


def matches(setting: EngineBenchSection, num_ranks: int) -> list[Match]:
    """Returns every match of a number of ranks, magicbert's own first."""
    own = [
        Match(MAGICBERT, stage, num_ranks, candidates)
        for candidates in setting.candidates
        for stage in setting.stages
    ]
    if not setting.peers:
        return own
    peers = []
    for stage in setting.stages:
        peers.append(Match("plain, torch_adam", stage, num_ranks, 1))
        for candidates in setting.candidates:
            peers.append(Match("stock", stage, num_ranks, candidates))
            if stage == 0:
                peers.append(Match("ddp", stage, num_ranks, candidates))
    return [*own, *peers]
