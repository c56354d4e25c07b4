"""The learning rate as a pure function of the step."""

from __future__ import annotations

import math

from magicbert.config.sections import OptimizerSection


def learning_rate(section: OptimizerSection, step: int, num_steps: int) -> float:
    """Returns the rate of one step: linear warm-up, then the decay that was chosen.

    Args:
        section: peak rate, warm-up and decay.
        step: from 0; the first step of a warm-up takes ``peak / warmup_steps``.
        num_steps: steps of the whole run; the decay ends at zero after the last one.
    """
    warmup = min(section.warmup_steps, num_steps)
    if step < warmup:
        return section.learning_rate * (step + 1) / warmup
    if section.schedule == "constant":
        return section.learning_rate
    share = (step - warmup) / max(num_steps - warmup, 1)
    if section.schedule == "linear":
        return section.learning_rate * (1.0 - share)
    return section.learning_rate * 0.5 * (1.0 + math.cos(math.pi * share))
