"""Plots of the analyses: the sampler's walk, heat maps of cosines, curves over m."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, to_hex
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator
from numpy.typing import NDArray

from magicbert.report.palette import CURVES, INK, MUTED, text_on
from magicbert.report.plots import svg

# Orange below zero, blue above: white is no agreement at all.
COSINES = LinearSegmentedColormap.from_list("cosines", ["#c2560a", "#f6f7f9", "#0b3c5d"])
MAPS_PER_ROW = 4


def walk_plot(walk: Mapping[str, Any]) -> str:
    """Draws the distance to uniform with its bounds, and the mean distance from the start.

    Args:
        walk: one walk of the analysis, as its record holds it.
    """

    def draw(figure: Figure) -> None:
        left, right = figure.subplots(1, 2)
        steps = range(len(walk["total_variation"]))
        left.plot(steps, walk["total_variation"], color=CURVES[0], label="exact")
        for (name, curve), colour in zip(walk["bounds"].items(), CURVES[1:], strict=False):
            left.plot(steps, curve, color=colour, linestyle=(0, (4, 3)), label=name)
        left.set_yscale("log")
        left.set_ylim(1e-4, 40)
        left.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        left.set_ylabel("total variation to uniform")
        left.legend(loc="upper right")
        simulated = walk["simulated"]
        right.plot(steps, walk["mean_distance"], color=CURVES[0], label="exact")
        right.errorbar(
            simulated["steps"], simulated["mean_distance"],
            [2 * error for error in simulated["standard_error"]], fmt="o", color=CURVES[1],
            markersize=4, linewidth=1, label=f"{simulated['num_walkers']} walkers, 2 s.e.",
        )  # fmt: skip
        right.set_ylabel("layers that differ from the start")
        right.set_ylim(bottom=0)
        right.legend(loc="lower right")
        for axes in (left, right):
            axes.set_xlabel("step")
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))

    return svg(draw, height=3.4, label=f"The walk of {walk['name']}")


def cosine_heat_maps(result: Mapping[str, Any]) -> str:
    """Draws one matrix of gradient cosines per shared operator, names beside it.

    Args:
        result: of the analysis of interference.
    """
    shared, names = result["operators"], result["candidates"]
    num_rows = -(-len(shared) // MAPS_PER_ROW)

    def draw(figure: Figure) -> None:
        grid = figure.subplots(num_rows, min(MAPS_PER_ROW, len(shared)), squeeze=False)
        for axes in grid.flat[len(shared) :]:
            axes.set_visible(False)
        for axes, row in zip(grid.flat, shared, strict=False):
            draw_cosines(axes, np.array(row["matrix"]["gradient"]), names)
            axes.set_title(f"shared {row['operator']}", fontsize=11)

    height = 0.4 + num_rows * (1.1 + 0.34 * max(4, len(names)))
    return svg(draw, height=height, label="Cosine of gradients of children at shared operators")


def draw_cosines(axes: Axes, values: NDArray[np.float64], names: Sequence[str]) -> None:
    """Draws one matrix with its numbers.

    Args:
        axes: where to.
        values: cosines ``[C, C]``.
        names: of the C rows and columns.
    """
    # Cells as vectors: an image would be a bitmap inside the page.
    edges = np.arange(len(names) + 1) - 0.5
    axes.pcolormesh(edges, edges, values, cmap=COSINES, vmin=-1, vmax=1, edgecolors="white")
    axes.set_aspect("equal")
    axes.invert_yaxis()
    axes.set_xticks(range(len(names)), names, rotation=90)
    axes.set_yticks(range(len(names)), names)
    axes.grid(visible=False)
    axes.tick_params(length=0)
    for (line, column), value in np.ndenumerate(values):
        axes.text(
            column, line, f"{value:.2f}", ha="center", va="center", fontsize=9,
            color=text_on(to_hex(COSINES((value + 1) / 2))),
        )  # fmt: skip


def several_layers_plot(result: Mapping[str, Any]) -> str:
    """Draws the gradient cosine over the number of differing layers, one curve per operator.

    Args:
        result: of the analysis of interference.
    """

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for number, row in enumerate(result["operators"]):
            curve = row["curve"]["gradient"]
            places = [point["num_layers"] for point in curve]
            colour = CURVES[number % len(CURVES)]
            axes.plot(
                places, [point["value"] for point in curve], "o-", color=colour, markersize=4,
                label=row["operator"],
            )  # fmt: skip
            axes.fill_between(
                places, [point["low"] for point in curve], [point["high"] for point in curve],
                color=colour, alpha=0.15, linewidth=0,
            )  # fmt: skip
        axes.axhline(0, color=MUTED, linewidth=0.8)
        axes.set_xlabel("m, layers in which every two children differ")
        axes.set_ylabel("cosine of gradients")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        legend = axes.legend(title="shared operator", loc="upper left", bbox_to_anchor=(1, 1))
        legend.get_title().set_color(INK)

    return svg(draw, height=3.6, label="Gradient cosine over the number of differing layers")
