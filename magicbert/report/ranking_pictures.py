"""Every plot of a study of rank fidelity, and the numbers behind each of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from magicbert.report.ranking_plots import MAIN, difference_plot, scatter_plot, tau_plot
from magicbert.report.ranking_study_plots import ablation_plot, curves_plot, relation_plot
from magicbert.report.section import CsvTable

Result = Mapping[str, Any]


@dataclass(frozen=True)
class Picture:
    """One plot.

    Attributes:
        name: of its files.
        svg: the drawing.
        caption: plain text.
        numbers: what is drawn.
    """

    name: str
    svg: str
    caption: str
    numbers: CsvTable


def pictures(result: Result) -> Iterator[Picture]:
    """Yields every plot that the result has numbers for.

    Args:
        result: of the analysis of ranking.
    """
    if any(entry["settings"] == MAIN and entry["tau"] for entry in result["methods"]):
        caption = (
            "Kendall's tau between inherited losses and those of training alone. Dots: one "
            "supernet each; diamonds: mean over seeds with Student's 95% interval; in brackets the "
            "number of seeds. Lines: what a perfect ranking could reach against losses with this "
            "much noise (derived; band: 95% over architectures), another seed of training alone, "
            "and rankings that need no training."
        )
        yield Picture("tau", tau_plot(result), caption, row_numbers(result))
    yield from (budget_picture(other) for other in result["other_budgets"] if other["rows"])
    if any(gain["settings"] == MAIN for gain in result["differences"]):
        caption = (
            "Tau minus that of uniform sampling with the same seed: one dot per seed, the mean "
            "with Student's 95% interval, cut at the edge of the plot. Of other settings those "
            "with most seeds. Open marks: equal training FLOPs."
        )
        numbers = difference_numbers(result)
        yield Picture("differences", difference_plot(result), caption, numbers)
    caption = (
        "Losses of training alone over what ranks them: the inherited losses of one supernet per "
        "method, the one of the median tau, and the rankings that need no training."
    )
    yield Picture("scatter", scatter_plot(result), caption, scatter_numbers(result))
    yield from study_pictures(result)


def budget_picture(other: Result) -> Picture:
    """Returns the plot of tau against another budget, of the settings that have most seeds.

    Args:
        other: an entry of the result's ``other_budgets``.
    """
    name = other["budget"]
    most = max((len(entry["seeds"]) for entry in other["methods"]), default=0)
    settings = [entry["settings"] for entry in other["methods"] if len(entry["seeds"]) == most]
    caption = (
        f"The same against budget '{name}' of training alone ({other['num_architectures']} "
        "architectures), of the settings with most seeds."
    )
    return Picture(f"tau-{name}", tau_plot(other, settings), caption, budget_numbers(other))


def budget_numbers(other: Result) -> CsvTable:
    """Returns tau of every supernet against another budget."""
    names = ("method", "settings", "seed", "tau", "tau_same_operators")
    rows = tuple(tuple(row[name] for name in names) for row in other["rows"])
    return CsvTable(f"ranking_tau_{other['budget']}", names, rows)


def study_pictures(result: Result) -> Iterator[Picture]:
    """Yields the plots of ablations, learning curves and relations."""
    if result["ablations"]:
        caption = (
            "Tau, and the cosine of gradients that two random paths send into shared operators, "
            "against settings. Bars: Student's 95% intervals over seeds, cut at 0.3. Dashed: "
            "uniform sampling."
        )
        numbers = ablation_numbers(result)
        yield Picture("ablations", ablation_plot(result), caption, numbers)
    if result["curves"]:
        caption = (
            "Valid loss of the supernets on fixed paths of the table: mean over seeds (their "
            "number in brackets), band from the lowest to the highest."
        )
        yield Picture("curves", curves_plot(result), caption, curve_numbers(result))
    if result["relations"]:
        caption = "Every supernet of the study: its tau over its inherited loss and interference."
        yield Picture("relations", relation_plot(result), caption, relation_numbers(result))


def row_numbers(result: Result) -> CsvTable:
    """Returns the figures of every supernet."""
    names = ("method", "settings", "seed", "tau", "tau_low", "tau_high", "p_value", "spearman",
             "tau_same_operators", "tau_same_parameters", "top_10_overlap", "regret_1",
             "regret_10", "loss", "interference", "interference_one_layer", "anchors", "steps",
             "flops")  # fmt: skip
    rows = tuple(tuple(row.get(name) for name in names) for row in result["rows"])
    return CsvTable("ranking_tau", names, rows)


def difference_numbers(result: Result) -> CsvTable:
    """Returns every paired difference to uniform sampling, seed by seed."""
    names = ("method", "settings", "baseline_settings", "seed", "difference", "mean", "low", "high",
             "p_value", "p_holm")  # fmt: skip
    gains = {
        (g["method"], g["settings"], g["baseline_settings"]): g
        for g in (*result["equal_flops"], *result["differences"])
    }
    rows = tuple(
        (*key, seed, point, *(gain[name] for name in names[5:]))
        for key, gain in gains.items()
        for seed, point in zip(gain["seeds"], gain["points"], strict=True)
    )
    return CsvTable("ranking_differences", names, rows)


def scatter_numbers(result: Result) -> CsvTable:
    """Returns losses and scores of every architecture."""
    shown = result["scatter"]
    methods = shown["methods"]
    columns = [shown[name] for name in ("architectures", "parameters", "flops", "losses")]
    columns += [entry["scores"] for entry in methods.values()]
    names = ("architecture", "parameters", "flops", "loss",
             *(f"{name}_seed_{entry['seed']}" for name, entry in methods.items()))  # fmt: skip
    return CsvTable("ranking_scatter", names, tuple(zip(*columns, strict=True)))


def ablation_numbers(result: Result) -> CsvTable:
    """Returns every point of every panel."""
    rows = tuple(
        (panel["name"], point["value"], point["method"], measure, point[measure]["mean"],
         point[measure]["low"], point[measure]["high"], point[measure]["num_seeds"])
        for panel in result["ablations"]
        for point in panel["points"]
        for measure in ("tau", "interference", "loss")
        if point[measure]
    )  # fmt: skip
    names = ("name", "value", "method", "measure", "mean", "low", "high", "num_seeds")
    return CsvTable("ranking_ablations", names, rows)


def curve_numbers(result: Result) -> CsvTable:
    """Returns every point of every learning curve."""
    rows = tuple(
        (curve["method"], *point)
        for curve in result["curves"]
        for point in zip(*(curve[name] for name in ("steps", "mean", "lowest", "highest")),
                         strict=True)
    )  # fmt: skip
    return CsvTable("ranking_curves", ("method", "step", "mean", "lowest", "highest"), rows)


def relation_numbers(result: Result) -> CsvTable:
    """Returns tau, loss and interference of every supernet."""
    names = ("method", "settings", "seed", "tau", "loss", "interference")
    rows = tuple(tuple(row.get(name) for name in names) for row in result["rows"])
    return CsvTable("ranking_relations", names, rows)
