"""Plots of rank fidelity: tau per method, paired differences, losses beside scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from magicbert.ranking.settings import is_at_equal_flops
from magicbert.ranking.words import contender, named, signed, variant_of
from magicbert.report.palette import CURVES, INK, LINE, MUTED
from magicbert.report.plots import short_count, svg

Result = Mapping[str, Any]
MAIN = "default"
PANELS_PER_ROW = 3
DASHED, DOTTED = (0, (4, 3)), (0, (1, 2))
TARGET = 0.05


def method_colours(result: Result) -> dict[str, str]:
    """Returns one colour per method, the same in every plot of a result."""
    methods = dict.fromkeys(row["method"] for row in result["rows"])
    return {name: CURVES[place % len(CURVES)] for place, name in enumerate(methods)}


def tau_plot(result: Result, settings: Sequence[str] = (MAIN,)) -> str:
    """Draws tau of every seed and each method's mean with its interval, above what is free.

    Args:
        result: of the analysis of ranking, or its part about another budget.
        settings: of the supernets that are shown.
    """
    colours = method_colours(result)
    shown = [entry for entry in result["methods"] if entry["settings"] in settings and entry["tau"]]

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for place, entry in enumerate(shown):
            taus = [
                row["tau"]
                for row in result["rows"]
                if (row["method"], row["settings"]) == (entry["method"], entry["settings"])
                if row.get("tau") is not None
            ]
            draw_seeds(axes, place, taus, entry["tau"], colours[entry["method"]])
        draw_levels(axes, result)
        reached = [row["tau"] for row in result["rows"] if row.get("tau") is not None]
        ceiling = result["ceiling"]
        keep_to(axes, reached if ceiling is None else [*reached, ceiling["attainable"]])
        name_rows(axes, [
            f"{variant_of(entry['method'], entry['settings'])} ({entry['tau']['num_seeds']})"
            for entry in shown
        ])  # fmt: skip
        axes.set_xlabel("Kendall's tau against the losses of training alone")
        axes.legend(loc="upper left", bbox_to_anchor=(1, 1))

    height = 1.3 + 0.46 * max(3, len(shown))
    return svg(draw, height=height, label="Kendall's tau of every supernet, by method")


def draw_seeds(
    axes: Axes, place: float, values: Sequence[float], mean: Result, colour: str, face: str = ""
) -> None:
    """Draws one row: a dot per seed, and the mean with Student's interval above them.

    Args:
        axes: where to.
        place: on the vertical axis.
        values: one per seed.
        mean: with ``mean``, ``low`` and ``high``.
        colour: of the row.
        face: fill of the mean's mark; empty = the colour.
    """
    axes.plot(values, [place + 0.16] * len(values), "o", color=colour, alpha=0.5, markersize=4.5,
              markeredgewidth=0)  # fmt: skip
    if mean["low"] is not None:
        axes.plot([mean["low"], mean["high"]], [place - 0.14] * 2, color=colour, linewidth=2.2,
                  solid_capstyle="butt")  # fmt: skip
    axes.plot(mean["mean"], place - 0.14, "D", color=colour, markersize=6,
              markerfacecolor=face or colour)  # fmt: skip


def draw_levels(axes: Axes, result: Result) -> None:
    """Draws the noise ceiling, the rankings that are free, and the spread of random orders."""
    ceiling, structure = result["ceiling"], result["structure"]
    if ceiling is not None:
        axes.axvline(ceiling["attainable"], color=INK, linewidth=1.2, label="a perfect ranking")
        axes.axvspan(ceiling["attainable_low"], ceiling["attainable_high"], color=LINE, alpha=0.6,
                     linewidth=0)  # fmt: skip
        axes.axvline(ceiling["between_seeds"], color=INK, linestyle=DASHED, linewidth=1.1,
                     label="another seed alone")  # fmt: skip
    for entry, style in zip(result["baselines"][:2], (DASHED, DOTTED), strict=False):
        if entry["tau"] is None:  # all architectures have one size
            continue
        axes.axvline(entry["tau"], color=MUTED, linestyle=style, linewidth=1.3,
                     label=f"more {entry['name']}")  # fmt: skip
    if structure["random_tau_sd"] is not None:
        spread = 2 * structure["random_tau_sd"]
        axes.axvspan(-spread, spread, color=MUTED, alpha=0.12, linewidth=0, label="random, ±2 sd")


def keep_to(axes: Axes, values: Sequence[float]) -> None:
    """Keeps the axis near the seeds: the interval of two of them may be ten times as wide."""
    low, high = axes.get_xlim()
    axes.set_xlim(max(low, min(-0.25, *values) - 0.2), min(high, max(0.25, *values) + 0.2, 1.15))


def name_rows(axes: Axes, names: Sequence[str]) -> None:
    """Names the rows of a plot, the first on top."""
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.grid(axis="y", visible=False)
    axes.tick_params(axis="y", length=0)


def difference_plot(result: Result) -> str:
    """Draws what each method gains over uniform sampling, seed by seed.

    Args:
        result: of the analysis of ranking.
    """
    colours = method_colours(result)
    most = max(len(gain["seeds"]) for gain in result["differences"])
    rows = [
        ("equal steps", gain)
        for gain in result["differences"]
        if not is_at_equal_flops(gain["settings"])
        if gain["settings"] == MAIN or len(gain["seeds"]) == most
    ]
    # Without an anchor, equal steps are equal FLOPs: the same row twice says nothing.
    rows += [
        ("equal FLOPs", gain)
        for gain in result["equal_flops"]
        if (gain["settings"], gain["baseline_settings"]) != (MAIN, MAIN)
    ]

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        axes.axvspan(-TARGET, TARGET, color=LINE, alpha=0.5, linewidth=0)
        axes.axvline(0, color=INK, linewidth=1)
        for place, (equality, gain) in enumerate(rows):
            face = "white" if equality == "equal FLOPs" else ""
            draw_seeds(axes, place, gain["points"], gain, colours[gain["method"]], face)
        keep_to(axes, [point for _, gain in rows for point in gain["points"]])
        name_rows(axes, [f"{contender(gain)}, {equality}" for equality, gain in rows])
        axes.set_xlabel("tau minus that of uniform sampling, same seed (grey: ±0.05)")

    height = 1.1 + 0.46 * max(2, len(rows))
    return svg(draw, height=height, label="Paired differences of tau to uniform sampling")


def scatter_plot(result: Result) -> str:
    """Draws losses of training alone beside scores of one seed per method, and parameters.

    Args:
        result: of the analysis of ranking.
    """
    shown, colours = result["scatter"], method_colours(result)
    taus = {entry["name"]: entry["tau"] for entry in result["baselines"]}
    panels = [
        (f"{named(name)}, seed {entry['seed']}: tau {signed(entry['tau'])}", entry["scores"],
         colours[name], "loss, inherited weights")
        for name, entry in shown["methods"].items()
    ]  # fmt: skip
    for name, column in (("parameters", "parameters"), ("FLOPs", "flops")):
        title = f"more {name}: tau {signed(taus.get(name))}"
        panels.append((title, shown[column], MUTED, name))
    num_rows = -(-len(panels) // PANELS_PER_ROW)

    def draw(figure: Figure) -> None:
        grid = figure.subplots(num_rows, PANELS_PER_ROW, squeeze=False, sharey=True)
        for axes in grid.flat[len(panels) :]:
            axes.set_visible(False)
        for axes, (title, values, colour, label) in zip(grid.flat, panels, strict=False):
            places = np.array(values, dtype=np.float64)
            axes.plot(places, shown["losses"], "o", color=colour, markersize=3.6, alpha=0.65,
                      markeredgewidth=0)  # fmt: skip
            axes.set_title(title, fontsize=11)
            axes.set_xlabel(label)
            axes.xaxis.set_major_locator(MaxNLocator(4))
            # Whole numbers on the axis: an offset beside it would lie on the label.
            axes.ticklabel_format(axis="x", useOffset=False)
            if label in ("parameters", "FLOPs"):
                axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: short_count(value)))
        for axes in grid[:, 0]:
            axes.set_ylabel("loss, trained alone")

    return svg(draw, height=0.3 + 2.6 * num_rows, label="Losses alone beside scores, by method")
