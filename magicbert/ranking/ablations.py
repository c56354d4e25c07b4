"""Settings that change one number: tau and interference against it (Figure 3 of the paper)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from magicbert.ranking.study_rows import DEFAULT

SETTING = re.compile(r"([a-z][a-z_-]*)=([-+]?\d+(?:\.\d+)?)")
# Where the default settings stand on the axis of a number: k operators change at a step, the
# anchor is the best path so far (the top 0%), alignment begins with the first step. On the axis of
# the steps they stand at their own.
PLACES = {"k": 1.0, "p": 0.0, "delay": 0.0}
ALIGNED = ("magic-a", "magic-at")
WHAT_IT_CHANGES = {"k": ("magic-t", "magic-at"), "p": ALIGNED, "delay": ALIGNED}


def ablations(summaries: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Returns one panel per number that was varied, with the default settings where they stand.

    Args:
        summaries: means over seeds of every method and settings.
    """
    panels: dict[str, list[dict[str, Any]]] = {}
    for summary in summaries:
        if match := SETTING.fullmatch(summary["settings"]):
            panels.setdefault(match[1], []).append(point(summary, float(match[2])))
    for name, points in panels.items():
        varied = {entry["method"] for entry in points}
        points += [
            point(summary, place)
            for summary in summaries
            if summary["settings"] == DEFAULT and summary["method"] in varied
            if (place := default_place(summary, name)) is not None
            if (summary["method"], place) not in {(p["method"], p["value"]) for p in points}
        ]
        points.sort(key=lambda entry: (entry["method"], entry["value"]))
    return [{"name": name, "points": points} for name, points in sorted(panels.items())]


def default_place(summary: Mapping[str, Any], name: str) -> float | None:
    """Returns where a method's default settings stand on the axis of a number, if they do."""
    if name == "steps":
        return float(summary["steps"])
    return PLACES[name] if summary["method"] in WHAT_IT_CHANGES.get(name, ()) else None


def point(summary: Mapping[str, Any], value: float) -> dict[str, Any]:
    """Returns one place of a panel."""
    kept = {name: summary[name] for name in ("method", "settings", "tau", "interference", "loss")}
    return {"value": value, **kept}
