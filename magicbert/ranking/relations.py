"""What goes with a good ranking: lower inherited loss, less interference?

Over all supernets of a study, and within methods: there the mean of each method and settings is
taken away from both figures, so that only what differs between seeds of one and the same training
is left.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from magicbert.bootstrap import estimate
from magicbert.ranking.correlation import Values, spearman_rho
from magicbert.ranking.fidelity import figure

FEWEST_SUPERNETS = 6
Row = Mapping[str, Any]


def relations(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Returns how tau goes with inherited loss and with interference, where there are enough rows.

    Args:
        rows: one per supernet, with ``tau``, ``loss`` and ``interference``.
    """
    found = []
    for measure in ("loss", "interference"):
        known = [r for r in rows if r.get(measure) is not None and r.get("tau") is not None]
        if len(known) < FEWEST_SUPERNETS:
            continue
        first, second = (np.array([row[name] for row in known]) for name in (measure, "tau"))
        groups = [(row["method"], row["settings"]) for row in known]
        found.append({
            "measure": measure,
            "num_supernets": len(known),
            **figure("over_all", spearman_rho(first, second)),
            **within_groups(first, second, groups),
        })  # fmt: skip
    return found


def within_groups(first: Values, second: Values, groups: Sequence[Any]) -> dict[str, Any]:
    """Returns the correlation of what is left when each group's mean is taken away."""
    a, b = without_means(first, groups), without_means(second, groups)
    repeated = [groups.count(group) > 1 for group in groups]
    pairs = np.stack([a, b], axis=1)[repeated]
    if len(pairs) < FEWEST_SUPERNETS or not pairs.any(axis=0).all():
        return dict.fromkeys(("within_methods", "within_methods_low", "within_methods_high"))
    return figure("within_methods", estimate(pairs, correlation))


def without_means(values: Values, groups: Sequence[Any]) -> Values:
    """Returns values minus the mean of their group."""
    left = values.astype(np.float64)
    for group in dict.fromkeys(groups):
        members = [place for place, other in enumerate(groups) if other == group]
        left[members] -= left[members].mean()
    return left


def correlation(pairs: Values) -> float:
    """Returns Pearson's correlation of two columns; NaN if one is constant."""
    scale = pairs[:, 0].std() * pairs[:, 1].std()
    if scale < 1e-15:
        return float("nan")
    return float(np.mean((pairs - pairs.mean(axis=0)).prod(axis=1)) / scale)
