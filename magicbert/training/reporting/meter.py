"""Sums over the steps since the last report, kept on the device until they are read."""

from __future__ import annotations

import time
from collections.abc import Sequence

import torch
from torch import Tensor

from magicbert.training.ranks import Ranks
from magicbert.training.watching.stragglers import straggler


class Meter:
    """Losses and tokens of a window of steps.

    Args:
        device: where the losses are.
        ranks: over which they are summed.
        names: of the metrics that the objective logs.

    Attributes:
        logged: sums of those metrics over the window that was read last, by name.
    """

    def __init__(self, device: torch.device, ranks: Ranks, names: Sequence[str] = ()) -> None:
        self.ranks = ranks
        self.names = tuple(names)
        self.logged: dict[str, float] = {}
        self.sums = torch.zeros(2 + len(self.names), dtype=torch.float64, device=device)
        self.num_steps = 0
        self.own_seconds = 0.0
        self.straggler: str | None = None
        self.num_tokens = 0
        self._start = time.monotonic()
        self._paused = 0.0

    def add(self, task: Tensor, alignment: Tensor, logged: Tensor) -> None:
        """Adds the shares of one micro-batch; nothing waits for the device."""
        self.sums += torch.cat([torch.stack([task, alignment]).double(), logged])

    def add_own(self, seconds: float) -> None:
        """Adds time that this rank has worked on its own, waiting for nobody."""
        self.own_seconds += seconds

    def end_step(self, num_tokens: int) -> None:
        """Counts one step and its tokens over all ranks."""
        self.num_steps += 1
        self.num_tokens += num_tokens

    def pause(self, seconds: float) -> None:
        """Leaves out time that was not spent on training."""
        self._paused += seconds

    def read(self) -> tuple[float, float, float]:
        """Returns mean task loss, mean alignment loss and tokens per second; starts anew."""
        values = [*self.sums.tolist(), self.own_seconds]
        shares = self.ranks.gather_floats(values, "training window")
        task, alignment, *logged = (
            sum(share[i] for share in shares) for i in range(len(self.sums))
        )
        self.logged = dict(zip(self.names, logged, strict=True))
        seconds = max(time.monotonic() - self._start - self._paused, 1e-9)
        result = (task / self.num_steps, alignment / self.num_steps, self.num_tokens / seconds)
        self.straggler = straggler([share[-1] for share in shares], seconds)
        self.sums.zero_()
        self.num_steps, self.num_tokens, self.own_seconds = 0, 0, 0.0
        self._start, self._paused = time.monotonic(), 0.0
        return result
