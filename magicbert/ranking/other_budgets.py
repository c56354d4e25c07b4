"""The same supernets against other budgets of training alone: longer ones are another truth."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from magicbert.ranking.comparisons import differences, longer_trainings, summaries
from magicbert.ranking.correlation import Pairs
from magicbert.ranking.fidelity import FEWEST, Truth, plain, tau_within
from magicbert.ranking.shared_error import shared_errors
from magicbert.ranking.study_rows import SupernetRow
from magicbert.ranking.table import Table
from magicbert.ranking.truth_parts import truth_parts


def other_budgets(
    table: Table, budget: str, supernets: Sequence[SupernetRow]
) -> list[dict[str, Any]]:
    """Returns, per other budget with enough architectures, how supernets rank its losses.

    Args:
        table: the benchmark.
        budget: the one that the rest of the result is about.
        supernets: of every method and settings.
    """
    truths = {name: Truth.of_losses(table, name) for name in table.names("loss") if name != budget}
    return [
        against(table, truth, name, supernets)
        for name, truth in truths.items()
        if len(truth) >= FEWEST
    ]


def against(
    table: Table, truth: Truth, budget: str, supernets: Sequence[SupernetRow]
) -> dict[str, Any]:
    """Returns one budget's ceilings, trivial rankings and supernets."""
    rows = [row for supernet in supernets if (row := scored(supernet, truth)) is not None]
    return {
        "budget": budget,
        "num_architectures": len(truth),
        **truth_parts(table, truth, budget),
        "rows": rows,
        "methods": summaries(rows),
        "differences": differences(rows),
        "shared_errors": shared_errors(truth, supernets),
        "longer": longer_trainings(rows),
    }


def scored(supernet: SupernetRow, truth: Truth) -> dict[str, Any] | None:
    """Returns tau of one supernet; ``None`` if it has scored too few of the architectures."""
    part, scores = truth.beside(supernet.scores)
    if len(part) < FEWEST:
        return None
    return {
        "method": supernet.method,
        "seed": supernet.seed,
        "settings": supernet.settings,
        "tau": plain(Pairs.of(scores, part.losses).tau()),
        "tau_same_operators": tau_within(part, scores, "operators"),
        "loss": supernet.loss,
        "steps": supernet.steps,
        "flops": supernet.flops,
        "anchors": supernet.anchors,
    }
