"""The tables of a study's result, as text: printed, on the report and on the page of the study."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from magicbert.ranking.study_rows import DEFAULT
from magicbert.ranking.words import about, contender, interval, named, signed, with_ends

Result = Mapping[str, Any]
Cells = tuple[str, ...]
CEILINGS = {
    "another seed of training alone": "between_seeds",
    "a perfect ranking (derived)": "attainable",
}


@dataclass(frozen=True)
class TextTable:
    """A table of text.

    Attributes:
        title: what it shows.
        head: names of the columns.
        rows: cells, as many as there are columns.
    """

    title: str
    head: Cells
    rows: tuple[Cells, ...]


def tables(result: Result) -> Iterator[TextTable]:
    """Yields the tables that have rows.

    Args:
        result: of `magicbert.ranking.study_result.study_result`.
    """
    made = (
        table_of_budgets(result),
        methods_table(result),
        baselines_table(result),
        differences_table(result["differences"], "equal steps"),
        differences_table(result["equal_flops"], "equal training FLOPs"),
        variants_table(result),
        *map(budget_table, result["other_budgets"]),
        downstream_table(result),
        shared_errors_table(result),
        relations_table(result),
    )
    yield from (table for table in made if table.rows)


def table_of_budgets(result: Result) -> TextTable:
    """Returns what was trained alone."""
    rows = tuple(
        (entry["name"], ", ".join(f"{count:,}" for count in entry["steps"]),
         str(entry["num_architectures"]), str(len(entry["seeds"])), f"{entry['lowest']:.3f}",
         f"{entry['median']:.3f}", f"{entry['highest']:.3f}")
        for entry in result["table"]["budgets"]
    )  # fmt: skip
    head = ("budget", "steps", "architectures", "seeds", "lowest loss", "median", "highest")
    return TextTable("Trained alone", head, rows)


def methods_table(result: Result) -> TextTable:
    """Returns the main comparison: means over seeds with Student's 95% intervals."""
    rows = tuple(
        (named(entry["method"]), str(len(entry["seeds"])), of(entry["tau"]),
         sd(entry["tau"]), mean(entry["spearman"]), of(entry["tau_same_operators"]),
         share(entry["top_10_overlap"]), mean(entry["regret_1"], 3, plus=False),
         mean(entry["loss"], 3, plus=False), mean(entry["interference"], 3),
         f"{entry['steps']:,.0f}", f"{entry['flops']:.3g}")
        for entry in result["methods"]
        if entry["settings"] == DEFAULT
    )  # fmt: skip
    head = ("method", "seeds", "tau", "sd", "Spearman", "tau, same operators", "top 10 found",
            "regret of the winner, nats", "inherited loss", "gradient cosine", "steps",
            "training FLOPs")  # fmt: skip
    return TextTable("Supernets at default settings", head, rows)


def baselines_table(result: Result) -> TextTable:
    """Returns the rankings that need no supernet, with their intervals over architectures."""
    rows = [
        (f"more {entry['name'].removeprefix('number of ')}", about(entry, "tau"),
         signed(entry["spearman"]), signed(entry["tau_same_operators"]))
        for entry in result["baselines"]
    ]  # fmt: skip
    structure, ceiling = result["structure"], result["ceiling"]
    if structure["random_tau_sd"] is not None:
        spread = 2 * structure["random_tau_sd"]
        rows.append(("a random order", with_ends(0.0, -spread, spread), "–", "–"))
    if structure["fitted_counts"] is not None:
        fit = about(structure["fitted_counts"], "tau")
        rows.append(("counts of operators, fitted to the losses", fit, "–", "–"))
    if ceiling is not None:
        within = result["ceiling_same_operators"]
        for name, of_ceiling in CEILINGS.items():
            same = "–" if within is None else about(within, of_ceiling)
            rows.append((name, about(ceiling, of_ceiling), "–", same))
    head = ("ranking", "tau", "Spearman", "tau, same operators")
    return TextTable("Rankings without a supernet", head, tuple(rows))


def differences_table(gains: Sequence[Result], equality: str) -> TextTable:
    """Returns paired differences of tau to uniform sampling.

    Args:
        gains: of the result; at equal steps those of default settings are shown.
        equality: what is equal, in words.
    """
    is_main = equality == "equal steps"
    rows = tuple(
        (contender(gain), f"{gain['flops_ratio']:.2f}", str(len(gain["seeds"])),
         interval(gain, 3),
         with_ends(gain["mean"], gain["bootstrap_low"], gain["bootstrap_high"], 3),
         probability(gain["p_value"]), *([probability(gain["p_holm"])] if is_main else []),
         needed(gain))
        for gain in gains
        if gain["settings"] == DEFAULT or not is_main
    )  # fmt: skip
    head = ("method", "FLOPs, of uniform sampling's", "common seeds", "difference of tau, Student",
            "the same, bootstrap", "p", *(["p, Holm"] if is_main else []),
            "seeds for ±0.05")  # fmt: skip
    return TextTable(f"Against uniform sampling at {equality}", head, rows)


def variants_table(result: Result) -> TextTable:
    """Returns all other settings."""
    to_uniform, to_base = (
        {(gain["method"], gain["settings"]): gain for gain in result[name]}
        for name in ("differences", "differences_settings")
    )
    rows = []
    for entry in result["methods"]:
        variant = (entry["method"], entry["settings"])
        if entry["settings"] != DEFAULT:
            rows.append((
                named(entry["method"]), entry["settings"], str(len(entry["seeds"])),
                of(entry["tau"]), of(to_uniform.get(variant)), of_base(to_base.get(variant)),
                mean(entry["interference"], 3), mean(entry["loss"], 3, plus=False),
            ))  # fmt: skip
    head = ("method", "settings", "seeds", "tau", "difference to uniform sampling",
            "difference to what it varies", "gradient cosine", "inherited loss")  # fmt: skip
    return TextTable("Other settings", head, tuple(rows))


def of_base(gain: Result | None) -> str:
    """Returns the difference to the settings that others start from, the default ones unnamed."""
    if gain is None or gain["baseline_settings"] == DEFAULT:
        return of(gain)
    return f"{interval(gain)} to {gain['baseline_settings']}"


def budget_table(other: Result) -> TextTable:
    """Returns how supernets, and what needs none, rank another budget's losses.

    Args:
        other: an entry of the result's ``other_budgets``.
    """
    gains = {(g["method"], g["settings"]): interval(g) for g in other["differences"]}
    means = {(e["method"], e["settings"]): about(e, "tau") for e in other["shared_errors"]}
    rows = []
    for entry in other["methods"]:
        variant = (entry["method"], entry["settings"])
        rows.append((
            named(entry["method"]), entry["settings"], str(len(entry["seeds"])), of(entry["tau"]),
            gains.get(variant, "–"), of(entry["tau_same_operators"]), means.get(variant, "–"),
        ))  # fmt: skip
    for name, tau, _, same in baselines_table(other).rows:
        rows.append((name, "–", "–", tau, "–", same, "–"))
    head = ("ranking", "settings", "seeds", "tau", "difference to uniform sampling",
            "tau, same operators", "tau of the mean scores")  # fmt: skip
    return TextTable(
        f"Against budget '{other['budget']}' of training alone, "
        f"{other['num_architectures']} architectures", head, tuple(rows),
    )  # fmt: skip


def downstream_table(result: Result) -> TextTable:
    """Returns tau against downstream scores."""
    methods = list(
        dict.fromkeys(m["method"] for task in result["downstream"] for m in task["methods"])
    )
    rows = []
    for task in result["downstream"]:
        taus = {entry["method"]: of(entry["tau"]) for entry in task["methods"]}
        rows.append((
            task["task"], task["metric"], str(task["num_architectures"]),
            about(task["alone"], "tau"), about(task["parameters"], "tau"),
            *(taus.get(method, "–") for method in methods),
        ))  # fmt: skip
    head = ("task", "metric", "architectures", "stand-alone loss", "parameters")
    return TextTable("Tau against downstream scores", (*head, *map(named, methods)), tuple(rows))


def shared_errors_table(result: Result) -> TextTable:
    """Returns what the mean scores of a method's supernets say, beside training alone."""
    truths = [(part["budget"], part["worths"]) for part in (result, *result["other_budgets"])]
    names = list(dict.fromkeys(name for _, worths in truths for name in worths or ()))

    def cells(worths: Result | None) -> Cells:
        return tuple(signed((worths or {}).get(name), 3) for name in names)

    rows = [
        (named(entry["method"]), entry["settings"], str(entry["num_seeds"]), about(entry, "tau"),
         *cells(entry["worths"]))
        for entry in result["shared_errors"]
    ]  # fmt: skip
    if rows:
        rows += [(f"alone, budget '{b}'", "–", "–", "–", *cells(worths)) for b, worths in truths]
    return TextTable(
        "Mean scores of a method's supernets: how they rank, and what a layer of each operator "
        "adds, nats against the mean operator",
        ("ranking", "settings", "seeds", "tau of the mean scores", *names), tuple(rows),
    )  # fmt: skip


def relations_table(result: Result) -> TextTable:
    """Returns what goes with tau over all supernets."""
    names = {"loss": "inherited loss", "interference": "gradient cosine"}
    rows = tuple(
        (names[entry["measure"]], str(entry["num_supernets"]), about(entry, "over_all"),
         about(entry, "within_methods"))
        for entry in result["relations"]
    )  # fmt: skip
    head = ("tau goes with", "supernets", "Spearman over all", "correlation within methods")
    return TextTable("What goes with a good ranking", head, rows)


def of(entry: Result | None) -> str:
    """Returns a mean with its interval; a dash for what was not measured."""
    return "–" if entry is None else interval(entry)


def mean(entry: Result | None, digits: int = 2, *, plus: bool = True) -> str:
    """Returns a mean alone."""
    if entry is None:
        return "–"
    return signed(entry["mean"], digits) if plus else f"{entry['mean']:.{digits}f}"


def sd(entry: Result | None) -> str:
    """Returns the standard deviation between seeds."""
    return "–" if entry is None or entry["sd"] is None else f"{entry['sd']:.3f}"


def share(entry: Result | None) -> str:
    """Returns a share in percent."""
    return "–" if entry is None else f"{100 * entry['mean']:.0f} %"


def probability(value: float | None) -> str:
    """Returns a p-value with two digits."""
    return "–" if value is None else f"{value:.2g}"


def needed(gain: Result) -> str:
    """Returns the seeds that an interval of ±0.05 takes, and at the upper limit of the sd."""
    if gain["seeds_needed"] is None:
        return "–"
    return f"{gain['seeds_needed']} (to {gain['seeds_needed_at_most']})"
