"""What a whole study has and the rows at hand have not, in words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from magicbert.ranking.study_rows import DEFAULT
from magicbert.ranking.words import named

MAIN_COMPARISON = ("spos", "magic-t", "magic-a", "magic-at")
# Parts of the result that are empty without the rows they need.
PARTS = {
    "ceiling": "no second seed of training alone: no noise ceiling",
    "budgets_agree": "no second budget: whether a longer training keeps the order is not known",
    "downstream": "no downstream scores",
    "equal_flops": "no comparison at equal training FLOPs",
    "ablations": "no ablations",
}
Result = Mapping[str, Any]


def missing(result: Result) -> list[str]:
    """Returns one sentence per gap.

    Args:
        result: of a study, but for its findings.
    """
    gaps = [sentence for part, sentence in PARTS.items() if not result[part]]
    if all(row["interference"] is None for row in result["rows"]):
        gaps.append("no interference of the supernets")
    return [*missing_supernets(result), *incomplete_budgets(result), *gaps]


def missing_supernets(result: Result) -> Iterator[str]:
    """Yields the methods of the main comparison that lack seeds."""
    main = {row["method"]: row["seeds"] for row in result["methods"] if row["settings"] == DEFAULT}
    for method in MAIN_COMPARISON:
        if method not in main:
            yield f"no supernet of {named(method)} at default settings"
        elif len(main[method]) < 2:
            yield f"one seed of {named(method)} only: no interval over seeds"


def incomplete_budgets(result: Result) -> Iterator[str]:
    """Yields the budgets at which some architectures lack a seed."""
    for budget in result["table"]["budgets"]:
        lacking = budget["num_architectures"] - budget["num_complete"]
        if lacking:
            yield f"budget {budget['name']}: {lacking} architectures lack a seed"
