"""How evenly a supernet's operators were trained: a heat map and the counts behind it."""

from __future__ import annotations

import numpy as np
from matplotlib.colors import LinearSegmentedColormap, to_hex
from matplotlib.figure import Figure

from magicbert.report.palette import natural_order, text_on
from magicbert.report.plots import short_count, svg
from magicbert.report.section import CsvTable, figure
from magicbert.supernet.coverage import Coverage

SHADES = LinearSegmentedColormap.from_list("counts", ["#f6f7f9", "#4d94c4", "#0b3c5d"])
HEAD = ("layer", "operator", "next_operator", "steps")


def coverage_figure(coverage: Coverage) -> str:
    """Returns the heat map of operators over layers with its caption."""
    operators, pairs = coverage.num_untrained
    per_pair = list(coverage.pairs.values()) or [0]
    caption = (
        f"Steps that trained each operator, by layer, of {coverage.num_steps:,}. Two operators in "
        f"neighbouring layers were trained together {min(per_pair):,} to {max(per_pair):,} times; "
        f"{operators:,} operators and {pairs:,} pairs never were."
    )
    return figure(coverage_plot(coverage), caption)


def coverage_plot(coverage: Coverage) -> str:
    """Draws steps by layer and operator; a cell without a number is not in the space."""
    names = sorted({name for layer in coverage.space.layers for name in layer}, key=natural_order)
    counts = np.full((len(names), coverage.space.num_layers), np.nan)
    for layer, candidates in enumerate(coverage.space.layers):
        for name in candidates:
            counts[names.index(name), layer] = coverage.operators[layer, name]
    most = float(np.nanmax(counts)) or 1.0

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        columns = np.arange(counts.shape[1] + 1) + 0.5
        axes.pcolormesh(
            columns, np.arange(len(names) + 1) - 0.5, np.ma.masked_invalid(counts), cmap=SHADES,
            vmin=0, vmax=most, edgecolors="white",
        )  # fmt: skip
        for (line, column), value in np.ndenumerate(counts):
            if np.isfinite(value):
                axes.text(
                    column + 1, line, short_count(value), ha="center", va="center",
                    fontsize=9 if counts.shape[1] <= 16 else 6,
                    color=text_on(to_hex(SHADES(value / most))),
                )  # fmt: skip
        axes.set_yticks(range(len(names)), names)
        axes.set_xticks(range(1, counts.shape[1] + 1))
        axes.set_xlabel("layer")
        axes.invert_yaxis()
        axes.grid(visible=False)
        axes.tick_params(length=0)

    return svg(draw, height=0.9 + 0.33 * len(names), label="Steps that trained each operator")


def coverage_numbers(name: str, coverage: Coverage) -> CsvTable:
    """Returns the counts of operators (no next operator) and of neighbouring pairs."""
    layers = coverage.space.layers
    rows: list[tuple[int, str, str, int]] = []
    for layer, candidates in enumerate(layers):
        for one in candidates:
            rows.append((layer + 1, one, "", coverage.operators[layer, one]))
            rows += [
                (layer + 1, one, other, coverage.pairs[layer, one, other])
                for other in (layers[layer + 1] if layer + 1 < len(layers) else ())
            ]
    return CsvTable(f"{name}_coverage", HEAD, tuple(rows))
