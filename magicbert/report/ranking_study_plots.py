"""Plots of the studies around rank fidelity: ablations, learning curves, what goes with tau."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from magicbert.ranking.words import named, variant_of
from magicbert.report.palette import MUTED
from magicbert.report.plots import short_count, svg
from magicbert.report.ranking_plots import DASHED, MAIN, PANELS_PER_ROW, Result, method_colours

AXES = {
    "k": "k, operators that change at a step",
    "p": "p, the anchor is the path at the top p%",
    "lambda": "weight of the alignment",
    "blocks": "points of alignment",
    "delay": "first steps without alignment",
    "steps": "steps of the supernet",
}
# The interval of two seeds can be longer than the axis has sense.
MOST_OF_A_BAR = 0.3
# Between two lines of a panel, in steps from one value to the next.
BESIDE = 0.08
MEASURES = {"tau": "Kendall's tau", "interference": "cosine of gradients"}


def ablation_plot(result: Result) -> str:
    """Draws tau and interference against every number that was varied (Figure 3 of the paper).

    Values stand side by side in their order, whatever lies between them.

    Args:
        result: of the analysis of ranking, with ablations.
    """
    panels, colours = result["ablations"], method_colours(result)
    measures = [
        name for name in MEASURES if any(p[name] for panel in panels for p in panel["points"])
    ]
    levels = uniform_levels(result)
    num_columns = min(len(panels), PANELS_PER_ROW)
    num_rows = -(-len(panels) // PANELS_PER_ROW) * len(measures)

    def draw(figure: Figure) -> None:
        grid = figure.subplots(num_rows, num_columns, squeeze=False, sharey="row")
        for axes in grid.flat:
            axes.set_visible(False)
        for (number, panel), (line, measure) in itertools.product(
            enumerate(panels), enumerate(measures)
        ):
            row, column = divmod(number, PANELS_PER_ROW)
            axes = grid[row * len(measures) + line, column]
            axes.set_visible(True)
            draw_panel(axes, panel["points"], measure, colours)
            if levels.get(measure) is not None:
                axes.axhline(levels[measure], color=MUTED, linestyle=DASHED, linewidth=1.1,
                             label="uniform sampling")  # fmt: skip
            if line == len(measures) - 1:
                axes.set_xlabel(AXES.get(panel["name"], panel["name"]))
            if not column:
                axes.set_ylabel(MEASURES[measure])
        handles = dict(
            entry[::-1]
            for axes in grid.flat
            for entry in zip(*axes.get_legend_handles_labels(), strict=True)
        )
        figure.legend(handles.values(), handles.keys(), loc="outside upper center", ncols=3)

    return svg(draw, height=0.9 + 2.1 * num_rows, label="Tau against settings")


def uniform_levels(result: Result) -> dict[str, float]:
    """Returns the means of uniform sampling at default settings."""
    return {
        measure: entry[measure]["mean"]
        for entry in result["methods"]
        if (entry["method"], entry["settings"]) == ("spos", MAIN)
        for measure in MEASURES
        if entry[measure]
    }


def draw_panel(
    axes: Axes, points: Sequence[Result], measure: str, colours: Mapping[str, str]
) -> None:
    """Draws one measure of one number: a line per method and the settings that it is varied in."""
    values = sorted({point["value"] for point in points})
    lines = list(dict.fromkeys((point["method"], point["base"]) for point in points))
    for number, (method, base) in enumerate(lines):
        own = [p for p in points if (p["method"], p["base"]) == (method, base) and p[measure]]
        if not own:
            continue
        is_main = base == MAIN
        # Side by side, so that intervals do not hide each other; one seed has none.
        aside = BESIDE * (number - (len(lines) - 1) / 2)
        axes.errorbar(
            [values.index(p["value"]) + aside for p in own], [p[measure]["mean"] for p in own],
            [half_of(point[measure]) for point in own], fmt="o-" if is_main else "o--",
            color=colours[method], markerfacecolor=colours[method] if is_main else "white",
            markersize=5, linewidth=1.3, elinewidth=1.3, capsize=2.5,
            label=variant_of(method, base),
        )  # fmt: skip
    axes.set_xticks(range(len(values)), [short_count(value) for value in values])
    axes.set_xlim(-0.4, len(values) - 0.6)


def half_of(mean: Result) -> float:
    """Returns half of an interval, as much of it as is drawn."""
    return 0.0 if mean["high"] is None else min(mean["high"] - mean["mean"], MOST_OF_A_BAR)


def curves_plot(result: Result) -> str:
    """Draws the loss of supernets over steps: mean over seeds, and their range.

    Args:
        result: of the analysis of ranking, with curves.
    """
    colours = method_colours(result)

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for curve in result["curves"]:
            colour = colours[curve["method"]]
            axes.fill_between(curve["steps"], curve["lowest"], curve["highest"], color=colour,
                              alpha=0.14, linewidth=0)  # fmt: skip
            label = f"{named(curve['method'])} ({curve['num_seeds']})"
            axes.plot(curve["steps"], curve["mean"], "o-", color=colour, markersize=3.5,
                      linewidth=1.5, label=label)  # fmt: skip
        axes.set_xlabel("step")
        axes.set_ylabel("valid loss of paths, nats")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: short_count(value)))
        figure.legend(loc="outside upper center", ncols=4)

    return svg(draw, height=3.4, label="Learning curves of supernets")


def relation_plot(result: Result) -> str:
    """Draws tau of every supernet over its inherited loss and over its interference.

    Args:
        result: of the analysis of ranking.
    """
    colours = method_colours(result)
    labels = {"loss": "inherited loss, nats", "interference": "cosine of gradients"}
    measures = [entry["measure"] for entry in result["relations"]]

    def draw(figure: Figure) -> None:
        grid = figure.subplots(1, len(measures), squeeze=False, sharey=True)[0]
        for axes, measure in zip(grid, measures, strict=True):
            for method, colour in colours.items():
                rows = [
                    row
                    for row in result["rows"]
                    if row["method"] == method
                    if row.get("tau") is not None and row.get(measure) is not None
                ]
                axes.plot([row[measure] for row in rows], [row["tau"] for row in rows], "o",
                          color=colour, markersize=5, alpha=0.75, markeredgewidth=0,
                          label=named(method))  # fmt: skip
            axes.set_xlabel(labels[measure])
            axes.xaxis.set_major_locator(MaxNLocator(6))
        grid[0].set_ylabel("Kendall's tau")
        grid[-1].legend(loc="upper left", bbox_to_anchor=(1, 1))

    return svg(draw, height=3.2, label="Tau over inherited loss and interference")
