"""Architectures drawn as stacks of operators, first layer at the bottom, as inline SVG."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Any

from magicbert.report.palette import INK, LINE, MUTED, operator_colours, text_on
from magicbert.report.plots import short_count

PAGE_WIDTH = 960
GUTTER = 34  # room for layer numbers, left
HEAD = 56  # room for rank, loss and parameters, above
MAX_COLUMN = 110


def stacks(results: Sequence[Mapping[str, Any]], names: Sequence[str]) -> str:
    """Draws one column per architecture.

    Args:
        results: rows with architecture, loss and parameters.
        names: what stands above each column.
    """
    paths = [str(row["architecture"]).split("-") for row in results]
    colours = operator_colours(name for path in paths for name in path)
    num_layers = max(len(path) for path in paths)
    column = min(MAX_COLUMN, (PAGE_WIDTH - GUTTER) / len(results))
    block = 24 if num_layers <= 12 else 18
    height = HEAD + num_layers * block + 26
    parts = [
        f'<svg viewBox="0 0 {PAGE_WIDTH} {height}" role="img" aria-label="Best architectures" '
        f'class="stacks">'
    ]
    parts += [_layer_number(layer, num_layers, block) for layer in range(num_layers)]
    for index, (row, path) in enumerate(zip(results, paths, strict=True)):
        left = GUTTER + index * column
        parts += _caption(names[index], row, left + column / 2)
        for layer, name in enumerate(path):
            top = HEAD + (num_layers - 1 - layer) * block
            parts.append(_block(name, colours[name], left + 3, top + 1, column - 6, block - 2))
    bottom = HEAD + num_layers * block
    parts.append(
        f'<line x1="{GUTTER}" x2="{GUTTER + len(results) * column:g}" y1="{bottom + 4}" '
        f'y2="{bottom + 4}" stroke="{LINE}"/>'
        f'<text x="{GUTTER + 3}" y="{bottom + 20}" class="note">embeddings</text></svg>'
    )
    return "".join(parts)


def strip(architecture: str) -> str:
    """Draws one architecture from left (first layer) to right, for the head of the page."""
    path = architecture.split("-")
    colours = operator_colours(path)
    width = PAGE_WIDTH / len(path)
    blocks = [
        _block(name, colours[name], index * width + 1, 0, width - 2, 30)
        for index, name in enumerate(path)
    ]
    return (
        f'<svg viewBox="0 0 {PAGE_WIDTH} 30" role="img" '
        f'aria-label="{html.escape(architecture)}" class="stacks">{"".join(blocks)}</svg>'
    )


def _block(name: str, colour: str, left: float, top: float, width: float, height: float) -> str:
    # About 0.6 em a letter; a name that does not fit is left to the tooltip.
    size = min(12.0, width / (0.62 * len(name)), height - 4)
    text = (
        f'<text x="{left + width / 2:.1f}" y="{top + height / 2:.1f}" font-size="{size:.1f}" '
        f'fill="{text_on(colour)}" class="block">{html.escape(name)}</text>'
        if size >= 6
        else ""
    )
    return (
        f'<g><title>{html.escape(name)}</title><rect x="{left:.1f}" y="{top:.1f}" '
        f'width="{width:.1f}" height="{height:.1f}" rx="3" fill="{colour}"/>{text}</g>'
    )


def _caption(name: str, row: Mapping[str, Any], middle: float) -> list[str]:
    lines = (
        (14, 13, INK, "bold", html.escape(name)),
        (30, 12, INK, "normal", f"{row['loss']:.3f}"),
        (46, 11, MUTED, "normal", short_count(row["parameters"])),
    )
    return [
        f'<text x="{middle:.1f}" y="{y}" font-size="{size}" fill="{colour}" font-weight="{weight}" '
        f'text-anchor="middle">{text}</text>'
        for y, size, colour, weight, text in lines
    ]


def _layer_number(layer: int, num_layers: int, block: int) -> str:
    top = HEAD + (num_layers - 1 - layer) * block
    return f'<text x="{GUTTER - 8}" y="{top + block / 2}" class="layer">{layer + 1}</text>'
