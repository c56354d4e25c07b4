"""Settings that change one number: tau and interference against it (Figure 3 of the paper)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from magicbert.ranking.comparisons import base_variant, variants_of
from magicbert.ranking.settings import parts_of
from magicbert.ranking.study_rows import DEFAULT

PART = re.compile(r"([a-z][a-z_-]*)=([-+]?\d+(?:\.\d+)?)")
# Where a method stands on the axis of a number that its settings do not name: k operators change at
# a step, the anchor is the best path so far (the top 0%), alignment begins with the first step;
# lambda and the number of blocks are the options' defaults. On the axis of steps each has its own.
PLACES = {"k": 1.0, "p": 0.0, "delay": 0.0, "lambda": 0.5, "blocks": 4.0}
GRADUAL, ALIGNED = ("magic-t", "magic-at"), ("magic-a", "magic-at")
WHAT_IT_CHANGES = {
    "k": GRADUAL, "p": ALIGNED, "delay": ALIGNED, "lambda": ALIGNED, "blocks": ALIGNED
}  # fmt: skip
Summary = Mapping[str, Any]


def ablations(summaries: Sequence[Summary]) -> list[dict[str, Any]]:
    """Returns one panel per number that was varied, with the settings that it was varied in.

    Each point names them as ``base``: points of one method and base make one line.

    Args:
        summaries: means over seeds of every method and settings.
    """
    panels: dict[str, list[dict[str, Any]]] = {}
    variants = variants_of(summaries)
    for summary in summaries:
        _, base = base_variant(variants, (summary["method"], summary["settings"])) or ("", DEFAULT)
        changed = sorted(parts_of(summary["settings"]) - parts_of(base))
        match = PART.fullmatch(changed[0]) if len(changed) == 1 else None
        if match is not None:
            panels.setdefault(match[1], []).append(point(summary, float(match[2]), base))
    for name, points in panels.items():
        points += unvaried_points(name, points, summaries)
        points.sort(key=lambda entry: (entry["method"], entry["base"], entry["value"]))
    return [{"name": name, "points": points} for name, points in sorted(panels.items())]


def unvaried_points(
    name: str, points: Sequence[Mapping[str, Any]], summaries: Sequence[Summary]
) -> list[dict[str, Any]]:
    """Returns where the settings themselves stand on the axis of a number varied in them."""
    lines = {(entry["method"], entry["base"]) for entry in points}
    taken = {(entry["method"], entry["base"], entry["value"]) for entry in points}
    return [
        point(summary, place, summary["settings"])
        for summary in summaries
        if (variant := (summary["method"], summary["settings"])) in lines
        if (place := unvaried_place(summary, name)) is not None and (*variant, place) not in taken
    ]


def unvaried_place(summary: Summary, name: str) -> float | None:
    """Returns where settings stand on the axis of a number that they do not name, if they do."""
    if name == "steps":
        return float(summary["steps"])
    return PLACES[name] if summary["method"] in WHAT_IT_CHANGES.get(name, ()) else None


def point(summary: Summary, value: float, base: str) -> dict[str, Any]:
    """Returns one place of a panel."""
    kept = {name: summary[name] for name in ("method", "settings", "tau", "interference", "loss")}
    return {"value": value, "base": base, **kept}
