"""Figures in sentences."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from magicbert.ranking.settings import at_equal_steps
from magicbert.ranking.study_rows import DEFAULT


def named(method: str) -> str:
    """Returns how a method is written: ``MAGIC-AT`` for ``magic-at``."""
    return method.upper()


def variant_of(method: str, settings: str) -> str:
    """Returns method and settings, the default ones unsaid: ``MAGIC-AT, delay=1000``."""
    return named(method) + ("" if settings == DEFAULT else f", {settings}")


def contender(gain: Mapping[str, Any]) -> str:
    """Returns who is compared; that its steps were cut is said by what is equal."""
    return variant_of(gain["method"], at_equal_steps(gain["settings"]))


def signed(value: float | None, digits: int = 2) -> str:
    """Returns a figure with its sign; a dash for one that is not defined."""
    return "–" if value is None else f"{value:+.{digits}f}"


def about(figures: Mapping[str, Any], name: str) -> str:
    """Returns ``+0.51 [+0.42, +0.60]`` from ``name``, ``name_low`` and ``name_high``."""
    low, high = figures[f"{name}_low"], figures[f"{name}_high"]
    return with_ends(figures[name], low, high)


def interval(mean: Mapping[str, Any], digits: int = 2) -> str:
    """Returns a mean over seeds with Student's 95% interval."""
    return with_ends(mean["mean"], mean["low"], mean["high"], digits)


def with_ends(value: float | None, low: float | None, high: float | None, digits: int = 2) -> str:
    """Returns a figure and the ends of its interval, if it has one."""
    if low is None or high is None:
        return signed(value, digits)
    return f"{signed(value, digits)} [{signed(low, digits)}, {signed(high, digits)}]"
