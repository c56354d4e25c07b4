"""Steps whose numbers are bad: how many are borne, which loss is a spike, when to stop.

A step whose gradient is not finite is skipped on the device, on all ranks alike, by the optimizer.
Here the skips are counted. All inputs are sums over ranks, so every rank comes to the same verdict.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from statistics import median

from magicbert.config.sections import TrainingSection
from magicbert.training.ranks import AgreedError
from magicbert.training.watching.exit_codes import EXIT_DIVERGED

SKIP_WINDOW, LOSS_WINDOW, FEWEST_LOSSES = 1000, 200, 20
# The spread of a window is taken to be at least this share of its median: the losses of a model
# that has settled may hardly differ.
LEAST_SPREAD = 0.01


class DivergedError(AgreedError):
    """The numbers are so bad that training on makes no sense; earlier checkpoints are kept."""

    exit_code = EXIT_DIVERGED


@dataclass(frozen=True)
class Anomaly:
    """One bad step.

    Attributes:
        step: which.
        kind: ``skipped`` or ``spike``.
        text: for the log.
        is_last_straw: training must stop.
    """

    step: int
    kind: str
    text: str
    is_last_straw: bool = False


class Anomalies:
    """Judges step after step.

    Args:
        training: the limits.
    """

    def __init__(self, training: TrainingSection) -> None:
        self.training = training
        self._skipped: deque[int] = deque()
        self._num_in_a_row = 0
        self._losses: deque[float] = deque(maxlen=LOSS_WINDOW)

    @property
    def threshold(self) -> float:
        """The loss above which a step is a spike; infinite while too few losses are known."""
        if len(self._losses) < FEWEST_LOSSES:
            return math.inf
        middle = median(self._losses)
        spread = median(abs(loss - middle) for loss in self._losses)
        return middle + self.training.spike_factor * max(spread, LEAST_SPREAD * abs(middle))

    def judge(self, step: int, loss: float, is_skipped: bool) -> Anomaly | None:
        """Takes in the next step; returns what was wrong with it.

        Args:
            step: which.
            loss: over all ranks.
            is_skipped: its gradient was not finite.
        """
        if is_skipped:
            return self._judge_skip(step, loss)
        self._num_in_a_row = 0
        threshold = self.threshold
        if math.isfinite(loss) and loss <= threshold:
            self._losses.append(loss)
            return None
        text = f"step {step}: the loss {loss:.4g} is a spike, above {threshold:.4g}"
        return Anomaly(step, "spike", text, self.training.on_spike == "stop")

    def _judge_skip(self, step: int, loss: float) -> Anomaly:
        self._num_in_a_row += 1
        self._skipped.append(step)
        while self._skipped[0] <= step - SKIP_WINDOW:
            self._skipped.popleft()
        is_last_straw = (
            self._num_in_a_row >= self.training.max_skips_in_a_row
            or len(self._skipped) >= self.training.max_skips_per_1000
        )
        text = (
            f"step {step}: skipped, its gradient was not finite (loss {loss:.4g}; "
            f"{self._num_in_a_row} in a row, {len(self._skipped)} in the last {SKIP_WINDOW} steps)"
        )
        return Anomaly(step, "skipped", text, is_last_straw)
