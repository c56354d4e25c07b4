"""Plots of the page on interference."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np
from interference_records import METHODS, Examined
from interference_tables import operators_of, triples
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from magicbert.report.palette import CURVES, MUTED
from magicbert.report.plots import svg

LINES = ("-", (0, (4, 2)), (0, (1, 1.5)))
DrawOperator: TypeAlias = Callable[[Axes, str], None]
M_LABEL = "m, layers in which every two children differ"


def method_curves(supernets: Sequence[Examined]) -> str:
    """Draws the gradient cosine over m per method: mean over seeds, lowest to highest as band.

    Args:
        supernets: of one size, examined at one layer.
    """

    def draw_operator(axes: Axes, operator: str) -> None:
        for method, colour in zip(METHODS, CURVES, strict=False):
            curves = [one.at(operator).curve for one in supernets if one.method == method]
            if not curves:
                continue
            values = np.array(curves)
            places = range(1, values.shape[1] + 1)
            axes.plot(places, values.mean(0), "o-", color=colour, markersize=4, label=method)
            axes.fill_between(
                places, values.min(0), values.max(0), color=colour, alpha=0.15, linewidth=0
            )

    return panels(supernets, draw_operator, M_LABEL, "Gradient cosine over m by method")


def size_curves(supernets: Sequence[Examined]) -> str:
    """Draws the gradient cosine over m: a colour per depth, a line style per candidates."""
    depths = sorted({one.num_layers for one in supernets})
    widths = sorted({one.num_candidates for one in supernets})

    def draw_operator(axes: Axes, operator: str) -> None:
        for one in sorted(supernets, key=lambda one: one.size):
            curve = one.at(operator).curve
            axes.plot(
                range(1, len(curve) + 1), curve,
                color=CURVES[depths.index(one.num_layers) % len(CURVES)],
                linestyle=LINES[widths.index(one.num_candidates) % len(LINES)],
                label=f"N={one.num_layers}, C={one.num_candidates}",
            )  # fmt: skip

    return panels(supernets, draw_operator, M_LABEL, "Gradient cosine over m by size")


def likeness_plot(supernets: Sequence[Examined]) -> str:
    """Draws every pair of children: gradient cosine over that of their inputs and outputs."""

    def draw(figure: Figure) -> None:
        grid = figure.subplots(1, 2, sharey=True)
        for column, (axes, name) in enumerate(zip(grid, ("inputs", "outputs"), strict=True)):
            for method, colour in zip(METHODS, CURVES, strict=False):
                some = [one for one in supernets if one.method == method]
                rows = [row for one in some for c in one.cosines for row in triples(c.pairs)]
                if rows:
                    axes.plot(
                        [row[column] for row in rows], [row[2] for row in rows], "o",
                        color=colour, markersize=4, alpha=0.7, markeredgewidth=0, label=method,
                    )  # fmt: skip
            axes.set_xlabel(f"cosine of {name}")
            axes.xaxis.set_major_locator(MaxNLocator(4))
        grid[0].set_ylabel("cosine of gradients")
        grid[1].legend(loc="upper left", bbox_to_anchor=(1, 1))

    return svg(draw, height=3.4, label="Gradient cosine over that of inputs and outputs")


def panels(
    supernets: Sequence[Examined],
    draw_operator: DrawOperator,
    x_label: str,
    label: str,
) -> str:
    """Draws a panel per shared operator, with one legend."""
    operators = operators_of(supernets)

    def draw(figure: Figure) -> None:
        grid = figure.subplots(1, len(operators), sharey=True, squeeze=False)[0]
        for axes, operator in zip(grid, operators, strict=True):
            draw_operator(axes, operator)
            axes.axhline(0, color=MUTED, linewidth=0.8)
            axes.set_title(f"shared {operator}", fontsize=11)
            axes.set_xlabel(x_label)
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        grid[0].set_ylabel("cosine of gradients")
        grid[-1].legend(loc="upper left", bbox_to_anchor=(1, 1))

    return svg(draw, height=3.6, label=label)
