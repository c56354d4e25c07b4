"""What a search found for every size: loss over each cost, the front and the random baselines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from magicbert.report.palette import CURVES, INK, LINE
from magicbert.report.plots import short_count, svg

Row = Mapping[str, Any]
COSTS = {
    "parameters": "parameters",
    "flops": "FLOPs of a forward",
    "latency_ms": "predicted latency, ms",
}


def front_plot(result: Mapping[str, Any]) -> str:
    """Draws one panel per cost that the search knows.

    Args:
        result: record of a search with its rows ``scored``, ``random`` and, in ``pareto``,
            ``front``.
    """
    front = result["pareto"]["front"]
    costs = [name for name in COSTS if front and front[0].get(name)]

    def draw(figure: Figure) -> None:
        panels = figure.subplots(1, max(len(costs), 1), sharey=True, squeeze=False)[0]
        for axes, name in zip(panels, costs, strict=False):
            draw_panel(axes, name, result)
        panels[0].set_ylabel("loss, nats")
        panels[0].legend(loc="upper right")

    return svg(draw, height=3.4, label="Pareto front of loss and costs")


def draw_panel(axes: Axes, name: str, result: Mapping[str, Any]) -> None:
    """Draws loss over one cost: everything scored, what nothing beats, and random ones."""
    front = result["pareto"]["front"]

    def places(rows: Sequence[Row]) -> tuple[list[float], list[float]]:
        known = [row for row in rows if row.get("loss") is not None]
        return [row[name] for row in known], [row["loss"] for row in known]

    axes.plot(*places(result["scored"]), "o", color=LINE, markersize=3, zorder=1, label="scored")
    axes.plot(*lower_steps(*places(front)), color=CURVES[0], linewidth=1.2, zorder=2)
    axes.plot(*places(front), "o", color=CURVES[0], markersize=4.5, zorder=3, label="front")
    axes.plot(*places(result["random"]), "x", color=INK, markersize=6, zorder=3, label="random")
    axes.set_xlabel(COSTS[name])
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: short_count(value)))
    axes.margins(x=0.08, y=0.1)


def lower_steps(costs: Sequence[float], losses: Sequence[float]) -> tuple[list[float], list[float]]:
    """Returns the corners of the least loss that is to be had for each cost."""
    corners: tuple[list[float], list[float]] = ([], [])
    least = float("inf")
    for cost, loss in sorted(zip(costs, losses, strict=True)):
        if loss < least:
            if corners[0]:
                corners[0].append(cost)
                corners[1].append(least)
            least = loss
            corners[0].append(cost)
            corners[1].append(loss)
    return corners
