"""Colours and typography of the page: dark on white, told apart by colour-blind readers.

Hues after Okabe and Ito (2008), darkened where white text stands on them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from magicbert.space.architecture import family_of

INK = "#1c2128"
MUTED = "#5c6773"
LINE = "#d5dbe2"
FAINT = "#f4f6f8"
FONTS = "system-ui, -apple-system, 'Segoe UI', 'Noto Sans', 'Liberation Sans', Arial, sans-serif"

# One colour per curve, in the order in which curves are drawn.
CURVES = ("#0063a6", "#c2560a", "#00795a", "#a5407e", "#6b5ca5", "#7a6a00")

# Shades of an operator family, dark to light; its members take them in order of appearance.
FAMILIES = {
    "mha": ("#0063a6", "#4d94c4", "#8dbcdc"),
    "ffn": ("#c2560a", "#e08a45", "#f0b98a"),
    "conv": ("#00795a", "#45a585", "#8fcbb5"),
}
OTHER = ("#6b5ca5", "#9a8ec4", "#c3bbdd")


def operator_colours(operators: Iterable[str]) -> dict[str, str]:
    """Returns a colour for each operator: the hue tells the family, the shade its member."""
    members: dict[str, list[str]] = {}
    for name in sorted(set(operators), key=natural_order):
        members.setdefault(family_of(name), []).append(name)
    return {
        name: shades[min(index, len(shades) - 1)]
        for family, names in members.items()
        for shades in (FAMILIES.get(family, OTHER),)
        for index, name in enumerate(names)
    }


def natural_order(name: str) -> list[tuple[int, str]]:
    """Returns a sort key by which ``conv3`` comes before ``conv15``."""
    return [(int(part) if part.isdigit() else -1, part) for part in re.findall(r"\d+|\D+", name)]


def text_on(colour: str) -> str:
    """Returns the text colour that is legible on a background (WCAG relative luminance)."""
    channels = [int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return "#ffffff" if luminance < 0.3 else INK
