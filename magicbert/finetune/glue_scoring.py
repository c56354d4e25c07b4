"""From logits to predictions and metrics of a GLUE task."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from magicbert.finetune.evaluation import Logits
from magicbert.finetune.metrics import METRICS, Values
from magicbert.finetune.tasks import Part, Task


def decide(task: Task, logits: Logits) -> Values:
    """Returns class numbers, or targets held inside the task's bounds."""
    if not task.is_regression:
        classes: Values = np.argmax(logits, axis=1).astype(np.float64)
        return classes
    low, high = task.bounds
    targets: Values = np.clip(np.nan_to_num(logits[:, 0], nan=low), low, high)
    return targets


def score(
    task: Task, parts: Sequence[tuple[Part, Iterable[float], Logits]]
) -> tuple[dict[str, float], bool]:
    """Returns every metric on every dev set, and whether the model diverged (all are 0 then).

    Args:
        task: gives the metrics.
        parts: each dev set with its labels and logits ``[rows, outputs]``.
    """
    diverged = not all(np.isfinite(logits).all() for _, _, logits in parts)
    metrics = {}
    for part, given, logits in parts:
        predicted = decide(task, logits)
        labels = np.asarray(given, dtype=np.float64)
        for name in task.metrics:
            value = 0.0 if diverged else METRICS[name](predicted, labels)
            metrics[name + part.metric_suffix] = value
    return metrics, diverged
