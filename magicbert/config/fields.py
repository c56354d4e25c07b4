"""One field of a configuration section: a default, a sentence for ``--help``, and its range."""

from __future__ import annotations

import dataclasses
import math
import re
import typing
from dataclasses import dataclass
from typing import Any

INTERVAL = re.compile(r"([\[(])\s*(\S+),\s*(\S+?)\s*([\])])")


@dataclass(frozen=True, slots=True)
class Range:
    """The numbers that an option may hold.

    Attributes:
        text: as an interval, such as ``[0, 1)``.
        low: its lower end.
        high: its upper end.
        has_low: whether the lower end belongs to it.
        has_high: whether the upper end belongs to it.
    """

    text: str
    low: float
    high: float
    has_low: bool
    has_high: bool

    @classmethod
    def parse(cls, text: str) -> Range:
        """Reads an interval; both ends are finite, so that nothing absurd is in it."""
        match = INTERVAL.fullmatch(text)
        assert match is not None, f"not an interval: {text}"
        low, high = float(match[2]), float(match[3])
        assert -math.inf < low < high < math.inf, text
        return cls(text, low, high, match[1] == "[", match[4] == "]")

    def __contains__(self, number: object) -> bool:
        assert isinstance(number, int | float)
        is_above = number >= self.low if self.has_low else number > self.low
        return is_above and (number <= self.high if self.has_high else number < self.high)


def option(default: Any, help: str, *, within: str = "") -> Any:
    """Returns a dataclass field with its default and its help text.

    Args:
        default: the one place where the default of this option stands.
        help: meaning and unit, in one sentence.
        within: the interval of a number, or of each number of a list; every option that holds
            numbers has one.
    """
    metadata: dict[str, Any] = {"help": help}
    if within:
        metadata["range"] = Range.parse(within)
    return dataclasses.field(default=default, metadata=metadata)


def section(kind: type) -> Any:
    """Returns a dataclass field that holds a nested section with its own defaults."""
    return dataclasses.field(default_factory=kind)


def listed_section(hint: Any) -> type | None:
    """Returns ``Section`` of ``tuple[Section, ...]``, a list of sections; ``None`` for others."""
    item = typing.get_args(hint)[0] if typing.get_origin(hint) is tuple else None
    return item if isinstance(item, type) and dataclasses.is_dataclass(item) else None
