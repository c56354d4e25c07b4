"""Where a run stands."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

from magicbert.space import Architecture


@dataclass(frozen=True)
class TrainState:
    """Where a run stands. Batches, masks, paths and dropout are functions of it.

    Attributes:
        step: optimizer steps made.
        path: the path of the last step; ``None`` before the first.
        num_tokens: valid positions seen, over all ranks.
        seconds: time of the earlier starts of the run.
        started: clock at this start.
    """

    step: int = 0
    path: Architecture | None = None
    num_tokens: int = 0
    seconds: float = 0.0
    started: float = 0.0

    def after(self, path: Architecture, num_tokens: int) -> TrainState:
        """Returns the position one step further."""
        return replace(self, step=self.step + 1, path=path, num_tokens=self.num_tokens + num_tokens)

    @property
    def total_seconds(self) -> float:
        """Time of all starts of the run up to now."""
        return self.seconds + time.monotonic() - self.started
