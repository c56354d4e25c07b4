"""Learning curves of supernets: mean over seeds, and whether they were still falling at the end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from magicbert.ranking.study_rows import DEFAULT, Curve, SupernetRow


def learning_curves(rows: Sequence[SupernetRow]) -> list[dict[str, Any]]:
    """Returns one curve per method at default settings; rows without a curve are left out."""
    found = []
    for method in dict.fromkeys(row.method for row in rows):
        curves = [r.curve for r in rows if r.variant == (method, DEFAULT) and len(r.curve) > 1]
        if curves:
            found.append({"method": method, **mean_curve(curves)})
    return found


def mean_curve(curves: Sequence[Curve]) -> dict[str, Any]:
    """Returns mean, lowest and highest loss at the steps that every curve has.

    ``last_quarter`` is how much the mean falls from three quarters of the steps to the end, in
    nats; ``None`` for curves without a step in common there.
    """
    by_step = [dict(curve) for curve in curves]
    steps = sorted(set.intersection(*(set(curve) for curve in by_step)))
    losses = np.array([[curve[step] for step in steps] for curve in by_step])
    mean = losses.mean(axis=0)
    fall = None
    if len(steps) > 1 and steps[0] <= 0.75 * steps[-1]:
        fall = float(np.interp(0.75 * steps[-1], steps, mean) - mean[-1])
    return {
        "steps": [int(step) for step in steps],
        "mean": mean.tolist(),
        "lowest": losses.min(axis=0, initial=np.inf).tolist(),
        "highest": losses.max(axis=0, initial=-np.inf).tolist(),
        "num_seeds": len(curves),
        "last_quarter": fall,
    }
