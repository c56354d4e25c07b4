"""Plots as inline SVG, drawn with matplotlib without a display and without global state."""

from __future__ import annotations

import html
import io
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, to_hex
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from magicbert.report.palette import CURVES, FONTS, INK, LINE, MUTED

STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "magicbert",
    "text.parse_math": False,
    "font.size": 11,
    "text.color": INK,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": LINE,
    "grid.linewidth": 0.6,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "legend.frameon": False,
    "legend.fontsize": 10,
}
WIDTH = 9.4  # inches; the page scales it to its own width


@dataclass(frozen=True)
class Curve:
    """The losses of one training.

    Attributes:
        name: what the legend calls it.
        train: steps and losses of the training batches.
        valid: steps and losses on the valid split.
    """

    name: str
    train: tuple[Sequence[int], Sequence[float]]
    valid: tuple[Sequence[int], Sequence[float]]


def loss_plot(
    curves: Sequence[Curve],
    *,
    entropy: float | None = None,
    alignment: tuple[Sequence[int], Sequence[float]] = ((), ()),
    unit: str = "masked token",
) -> str:
    """Draws loss over steps, and below it the alignment loss where there is one.

    Args:
        curves: one colour each.
        entropy: nats; level of a model that knows the frequencies of the tokens only.
        alignment: steps and values of the alignment loss.
        unit: what a loss is the mean over.
    """

    def draw(figure: Figure) -> None:
        rows = 2 if alignment[0] else 1
        ratios = [3, 1][:rows]
        axes = figure.subplots(rows, 1, sharex=True, squeeze=False, height_ratios=ratios)[:, 0]
        for curve, colour in zip(curves, _cycle(len(curves)), strict=True):
            _draw_curve(axes[0], curve, colour, show_raw=len(curves) <= 2)
        if entropy is not None:
            axes[0].axhline(entropy, color=MUTED, linestyle=(0, (4, 3)), linewidth=1.1)
            axes[0].annotate(
                "unigram entropy", (1, entropy), xycoords=("axes fraction", "data"),
                xytext=(0, 4), textcoords="offset points", ha="right", color=MUTED, fontsize=10,
            )  # fmt: skip
        axes[0].set_ylabel(f"loss, nats per {unit}")
        if axes[0].get_legend_handles_labels()[0]:
            axes[0].legend(loc="upper right", ncols=max(1, min(3, len(curves))))
        if rows == 2:
            axes[1].plot(*alignment, color=CURVES[3], linewidth=1.2)
            axes[1].set_ylabel("alignment")
            axes[1].set_ylim(bottom=0)
        axes[-1].set_xlabel("step")
        axes[-1].xaxis.set_major_locator(MaxNLocator(integer=True))

    return svg(draw, height=4.6 if alignment[0] else 3.7, label="Loss over training steps")


def _draw_curve(axes: Axes, curve: Curve, colour: str, *, show_raw: bool) -> None:
    steps, losses = curve.train
    if steps and show_raw:
        axes.plot(steps, losses, color=colour, linewidth=0.8, alpha=0.35)
    if steps:
        axes.plot(steps, smooth(losses), color=colour, linewidth=1.6, label=f"{curve.name}, train")
    if curve.valid[0]:
        axes.plot(
            *curve.valid, color=colour, linewidth=1.2, linestyle=(0, (1, 1)), marker="o",
            markersize=5, markerfacecolor="white", markeredgewidth=1.4,
            label=f"{curve.name}, valid",
        )  # fmt: skip


def smooth(values: Sequence[float]) -> list[float]:
    """Returns the centred running mean over a tenth of the curve, narrower where it starts."""
    reach = len(values) // 20
    means = []
    for centre in range(len(values)):
        half = min(reach, centre)
        window = values[centre - half : centre + half + 1]
        means.append(sum(window) / len(window))
    return means


def anchor_plot(events: Sequence[Mapping[str, Any]]) -> str:
    """Draws the anchor's score over steps and the challengers it was compared with.

    Args:
        events: rows with step, score of the anchor until then, challenger_score and replaced.
    """

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        steps = [event["step"] for event in events]
        challengers = [event["challenger_score"] for event in events]
        kept = [event["challenger_score" if event["replaced"] else "score"] for event in events]
        axes.plot(steps, kept, color=CURVES[0], linewidth=1.6, label="anchor")
        for replaced, face, label in ((False, "white", "sample, rejected"),
                                      (True, CURVES[1], "sample, new anchor")):  # fmt: skip
            chosen = [i for i, event in enumerate(events) if event["replaced"] is replaced]
            if chosen:
                axes.plot(
                    [steps[i] for i in chosen], [challengers[i] for i in chosen], "o",
                    color=CURVES[1], markerfacecolor=face, markersize=5, label=label,
                )  # fmt: skip
        axes.set_xlabel("step")
        axes.set_ylabel("score on dev batches")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.legend(loc="best", ncols=3)

    return svg(draw, height=2.6, label="Score of the anchor over training steps")


def cost_plot(
    scored: Sequence[Mapping[str, Any]],
    best: Mapping[str, Any],
    limits: Sequence[float] = (),
    random: Sequence[Mapping[str, Any]] = (),
) -> str:
    """Draws every scored candidate: parameters against loss.

    Args:
        scored: rows with parameters, loss and round.
        best: the winner, marked.
        limits: limits on the parameters, drawn as lines.
        random: architectures drawn uniformly within the limits, which the winner must beat.
    """
    baselines = [row for row in random if row.get("loss") is not None]

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        rounds = sorted({row["round"] for row in scored})
        for number, colour in zip(rounds, _shades(len(rounds)), strict=True):
            rows = [row for row in scored if row["round"] == number]
            axes.plot(
                [row["parameters"] for row in rows], [row["loss"] for row in rows], "o",
                color=colour, markersize=4.2, markeredgewidth=0, alpha=0.85, label=str(number),
            )  # fmt: skip
        if baselines:
            axes.plot(
                [row["parameters"] for row in baselines], [row["loss"] for row in baselines], "x",
                color=INK, markersize=7, markeredgewidth=1.6, label="random",
            )  # fmt: skip
        axes.scatter(best["parameters"], best["loss"], marker="*", s=230, color=CURVES[1],
                     edgecolors="white", linewidths=1, zorder=3)  # fmt: skip
        axes.annotate("winner", (best["parameters"], best["loss"]), xytext=(9, -4),
                      textcoords="offset points", color=CURVES[1], weight="bold")  # fmt: skip
        for limit in limits:
            axes.axvline(limit, color=INK, linestyle=(0, (4, 3)), linewidth=1.1)
            axes.annotate("limit", (limit, 1), xycoords=("data", "axes fraction"),
                          xytext=(4, -12), textcoords="offset points")  # fmt: skip
        axes.set_xlabel("parameters of the encoder")
        axes.set_ylabel("loss with inherited weights, nats")
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: short_count(value)))
        axes.margins(x=0.08, y=0.1)
        if len(rounds) > 1 or baselines:
            axes.legend(title="round", loc="upper left", bbox_to_anchor=(1.0, 1.0))

    return svg(draw, height=4.0, label="Cost against loss of all scored candidates")


def score_plot(models: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """Draws median and range of every task, one colour per model.

    Args:
        models: summary rows (task, median, minimum, maximum) of each model.
    """
    tasks = list(dict.fromkeys(row["task"] for rows in models.values() for row in rows))
    gap = 0.8 / max(1, len(models))

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        colours = _cycle(len(models))
        for index, ((name, rows), colour) in enumerate(zip(models.items(), colours, strict=True)):
            for row in rows:
                place = tasks.index(row["task"]) + (index - (len(models) - 1) / 2) * gap
                low, middle, high = (100 * row[n] for n in ("minimum", "median", "maximum"))
                axes.plot([low, high], [place, place], color=colour,
                          linewidth=4, alpha=0.35, solid_capstyle="round")  # fmt: skip
                label = name if row is rows[0] else None
                axes.plot(middle, place, "o", color=colour, markersize=6, label=label)
        axes.set_yticks(range(len(tasks)), tasks)
        axes.set_ylim(len(tasks) - 0.4, -0.6)
        axes.grid(axis="y", visible=False)
        axes.set_xlabel("score of the task's metric, times 100")
        if len(models) > 1:
            axes.legend(loc="upper center", bbox_to_anchor=(0.5, 1.0), ncols=4)
            axes.set_ylim(len(tasks) - 0.4, -1.1)

    height = 1.2 + 0.22 * max(1, len(models)) * len(tasks)
    return svg(draw, height=height, label="Fine-tuning scores")


def svg(draw: Callable[[Figure], None], *, height: float, label: str) -> str:
    """Returns a figure as an SVG element that scales with the page and uses its fonts.

    Args:
        draw: draws on an empty figure.
        height: inches, at a width of `WIDTH`.
        label: what a screen reader says.
    """
    stream = io.StringIO()
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        draw(figure)
        figure.savefig(stream, format="svg", transparent=True, metadata={"Date": None})
    text = stream.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r"'DejaVu Sans'[^;\"]*", FONTS, text)
    opening = (
        f'<svg viewBox="0 0 {WIDTH * 72:g} {height * 72:g}" role="img" '
        f'aria-label="{html.escape(label)}" xmlns:xlink="http://www.w3.org/1999/xlink">'
    )
    return re.sub(r"<svg[^>]*>", lambda _: opening, text, count=1)


def standing_alone(element: str) -> str:
    """Returns what `svg` returned as the text of a file of its own."""
    return element.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1) + "\n"


def short_count(value: float) -> str:
    """Returns ``12.3M`` for 12,300,000."""
    for size, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.3g}{letter}"
    return f"{value:.3g}"


def _shades(count: int) -> list[str]:
    """Returns colours from light to dark, for things that have an order."""
    colours = LinearSegmentedColormap.from_list("ordered", ["#b3cfe2", "#4d94c4", "#0b3c5d"])
    return [to_hex(colours(index / max(1, count - 1))) for index in range(count)]


def _cycle(count: int) -> list[str]:
    return [CURVES[index % len(CURVES)] for index in range(count)]
