"""Loss and gradient norm of a step, read a step or two later: nobody waits for the device."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from magicbert.training.module import StepPlan
from magicbert.training.samples import StepData

# On an accelerator the host runs ahead; it waits for the step before the last one at most.
STEPS_LATE_ON_CPU, STEPS_LATE = 1, 2


@dataclass(frozen=True)
class Numbers:
    """What a step came to, on this rank.

    Attributes:
        plan: the step.
        data: what this rank read.
        loss: this rank's share of the step's loss.
        norm: gradient norm over all ranks.
    """

    plan: StepPlan
    data: StepData
    loss: float
    norm: float

    @property
    def is_skipped(self) -> bool:
        """Whether the optimizer skipped the step."""
        return not math.isfinite(self.norm)


class LateNumbers:
    """Numbers on their way from the device.

    Args:
        device: where they are computed.
    """

    def __init__(self, device: torch.device) -> None:
        self._on_cpu = device.type == "cpu"
        self._lag = STEPS_LATE_ON_CPU if self._on_cpu else STEPS_LATE
        self._waiting: deque[tuple[StepPlan, StepData, Tensor, Any]] = deque()

    def put(self, plan: StepPlan, data: StepData, loss: Tensor, norm: Tensor) -> None:
        """Sends the numbers of a step on their way."""
        both = torch.stack([loss.detach().double(), norm.detach().to(loss.device).double()])
        if self._on_cpu:
            self._waiting.append((plan, data, both, None))
            return
        there = torch.empty(2, dtype=torch.float64, pin_memory=True)
        there.copy_(both, non_blocking=True)
        arrived = torch.Event(loss.device)
        arrived.record()
        self._waiting.append((plan, data, there, arrived))

    def take(self) -> Numbers | None:
        """Returns the numbers that are due, the same steps on every rank."""
        if len(self._waiting) < self._lag:
            return None
        plan, data, both, arrived = self._waiting.popleft()
        if arrived is not None:
            arrived.synchronize()
        loss, norm = both.tolist()
        return Numbers(plan, data, loss, norm)
