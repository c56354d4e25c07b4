"""Names of settings, such as ``delay=1000, lambda=0.1``: what they change, and against which."""

from __future__ import annotations

from collections.abc import Iterable

from magicbert.ranking.study_rows import DEFAULT, EQUAL_FLOPS

Parts = frozenset[str]


def parts_of(settings: str) -> Parts:
    """Returns what the settings change; the default ones change nothing."""
    parts = frozenset(part.strip() for part in settings.split(",") if part.strip())
    return parts - {DEFAULT}


def is_at_equal_flops(settings: str) -> bool:
    """Returns whether a supernet of these settings is trained for fewer steps on purpose."""
    return EQUAL_FLOPS in parts_of(settings)


def at_equal_steps(settings: str) -> str:
    """Returns the settings without the cut of steps: ``delay=1000`` of ``delay=1000, equal-flops``.

    The order of the parts stays.
    """
    parts = [part.strip() for part in settings.split(",")]
    return ", ".join(part for part in parts if part != EQUAL_FLOPS) or DEFAULT


def base_of(settings: str, known: Iterable[str]) -> str | None:
    """Returns the known settings that change most of what some settings change, and nothing else.

    ``delay=1000, lambda=0.1`` is held against ``delay=1000`` if that is known, else against the
    default settings.

    Args:
        settings: that are looked at.
        known: other settings of the same method.

    Returns:
        ``None`` if no known settings change less, and for steps that were cut: those are compared
        at equal FLOPs.
    """
    if is_at_equal_flops(settings):
        return None
    own = parts_of(settings)
    beneath = [other for other in known if parts_of(other) < own]
    return max(beneath, key=lambda other: len(parts_of(other)), default=None)
