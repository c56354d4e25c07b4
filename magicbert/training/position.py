"""Where a run stands."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from magicbert.space import Architecture
from magicbert.training.checkpoints.fields import (
    take,
    take_seconds,
    take_whole,
    text_or_none,
)


@dataclass(frozen=True)
class TrainState:
    """Where a run stands. Batches, masks, paths and dropout are functions of it.

    Attributes:
        step: optimizer steps made.
        path: the path of the last step; ``None`` before the first.
        num_tokens: valid positions seen, over all ranks.
        seconds: time of the earlier starts of the run.
        started: clock at this start.
        loop: what else the loop wants back when it goes on, as JSON data.
    """

    step: int = 0
    path: Architecture | None = None
    num_tokens: int = 0
    seconds: float = 0.0
    started: float = 0.0
    loop: Mapping[str, Any] = field(default_factory=dict)

    def after(self, path: Architecture, num_tokens: int) -> TrainState:
        """Returns the position one step further."""
        return replace(self, step=self.step + 1, path=path, num_tokens=self.num_tokens + num_tokens)

    @property
    def total_seconds(self) -> float:
        """Time of all starts of the run up to now."""
        return self.seconds + time.monotonic() - self.started

    def to_json(self) -> dict[str, Any]:
        """Returns what a checkpoint keeps of it."""
        return {
            "step": self.step,
            "path": None if self.path is None else str(self.path),
            "num_tokens": self.num_tokens,
            "seconds": self.total_seconds,
            "loop": dict(self.loop),
        }

    @classmethod
    def parse(cls, record: Mapping[str, Any], started: float) -> TrainState:
        """Reads `to_json` back, every field checked.

        Raises:
            UserError: names the field that is wrong.
        """
        path = text_or_none(record, "path")
        return cls(
            step=take_whole(record, "step"),
            path=None if path is None else Architecture.parse(path),
            num_tokens=take_whole(record, "num_tokens"),
            seconds=take_seconds(record, "seconds"),
            started=started,
            loop=take(record, "loop", dict),
        )
