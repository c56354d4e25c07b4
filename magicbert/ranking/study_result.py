"""From the rows of a study to its result: every figure of the page, and what follows from them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from magicbert.errors import UserError
from magicbert.ranking.ablations import ablations
from magicbert.ranking.comparisons import (
    differences,
    equal_flops,
    longer_trainings,
    settings_differences,
    summaries,
)
from magicbert.ranking.correlation import kendall_tau
from magicbert.ranking.downstream import downstream_part, downstream_taus
from magicbert.ranking.fidelity import FEWEST, Truth, fidelity, figure
from magicbert.ranking.findings import findings
from magicbert.ranking.learning import learning_curves
from magicbert.ranking.missing import missing
from magicbert.ranking.other_budgets import other_budgets
from magicbert.ranking.relations import relations
from magicbert.ranking.shared_error import shared_errors
from magicbert.ranking.study_rows import DEFAULT, SupernetRow, supernet_rows
from magicbert.ranking.table import Table
from magicbert.ranking.truth_parts import truth_parts

Row = Mapping[str, Any]


def study_result(rows: Iterable[Row], *, budget: str = "") -> dict[str, Any]:
    """Returns everything that the rows of a study say, as JSON data.

    Works on any part of a study; ``missing`` names what the rows do not hold.

    Args:
        rows: JSON objects of the kinds ``alone``, ``supernet`` and ``downstream``.
        budget: of the losses that rankings are held against; empty = the best covered one.

    Raises:
        UserError: no architecture was trained alone, or rows contradict each other.
    """
    known = list(rows)
    table = Table.from_rows(known)
    if not table.names("loss"):
        raise UserError("the study has no architecture trained alone: nothing to rank against")
    budget = budget or table.names("loss")[0]
    truth = Truth.of_losses(table, budget)
    supernets = supernet_rows(known)
    scored = [scored_row(row, truth, table) for row in supernets]
    result: dict[str, Any] = {
        "budget": budget,
        "table": table_part(table, known),
        **truth_parts(table, truth, budget),
        "budgets_agree": budgets_part(table, budget),
        "shared_errors": shared_errors(truth, supernets),
        "other_budgets": other_budgets(table, budget, supernets),
        "rows": scored,
        "methods": summaries(scored),
        "differences": differences(scored),
        "differences_loss": differences(scored, "loss"),
        "differences_interference": differences(scored, "interference"),
        "differences_same_operators": differences(scored, "tau_same_operators"),
        "differences_settings": settings_differences(scored),
        "longer": longer_trainings(scored),
        "equal_flops": equal_flops(scored),
        "downstream": downstream_part(table, truth, scored, known),
        "relations": relations(scored),
        "curves": learning_curves(supernets),
        "scatter": scatter_part(truth, supernets, scored),
    }
    result["ablations"] = ablations(result["methods"])
    result["missing"] = missing(result)
    result["findings"] = findings(result)
    return result


def scored_row(row: SupernetRow, truth: Truth, table: Table) -> dict[str, Any]:
    """Returns one supernet's figures."""
    part, scores = truth.beside(row.scores)
    return {
        "method": row.method,
        "seed": row.seed,
        "settings": row.settings,
        **fidelity(part, scores),
        "loss": row.loss,
        "steps": row.steps,
        "flops": row.flops,
        "anchors": row.anchors,
        "interference": row.interference,
        "interference_one_layer": row.interference_one_layer,
        "seconds": row.seconds,
        "tau_downstream": downstream_taus(row, table),
    }


def table_part(table: Table, rows: Sequence[Row]) -> dict[str, Any]:
    """Returns what the table holds: budgets with their steps, seeds and range of losses."""
    budgets = []
    for name in table.names("loss"):
        measured = table.measured("loss", name)
        losses = [row.mean("loss", name) for row in measured]
        steps = {r["steps"] for r in rows if r["kind"] == "alone" and r["budget"] == name}
        budgets.append({
            "name": name,
            "num_architectures": len(measured),
            "num_complete": len(table.matrix("loss", name)[0]),
            "seeds": list(table.seeds("loss", name)),
            "steps": sorted(steps),
            "lowest": float(np.min(np.array(losses, dtype=np.float64))),
            "median": float(np.median(np.array(losses, dtype=np.float64))),
            "highest": float(np.max(np.array(losses, dtype=np.float64))),
        })  # fmt: skip
    return {
        "num_architectures": len(table),
        "num_layers": max(len(row.architecture) for row in table),
        "operators": sorted({name for row in table for name in row.architecture}),
        "budgets": budgets,
    }


def budgets_part(table: Table, budget: str) -> list[dict[str, Any]]:
    """Returns how the order at the budget of the ranking agrees with that at each other one."""
    found = []
    for other in table.names("loss"):
        means = [(row.mean("loss", budget), row.mean("loss", other)) for row in table]
        both = np.array([two for two in means if None not in two], dtype=np.float64)
        if other != budget and len(both) >= FEWEST:
            tau = figure("tau", kendall_tau(*both.T))
            found.append({"budget": other, "num_architectures": len(both), **tau})
    return found


def scatter_part(
    truth: Truth, supernets: Sequence[SupernetRow], scored: Sequence[Row]
) -> dict[str, Any]:
    """Returns losses beside scores, per method of the seed whose tau is the median one."""
    chosen = {}
    for method in dict.fromkeys(row.method for row in supernets):
        own = [
            (row["tau"], supernet)
            for row, supernet in zip(scored, supernets, strict=True)
            if supernet.variant == (method, DEFAULT) and row.get("tau") is not None
        ]
        if own:
            own.sort(key=lambda entry: (entry[0], entry[1].seed))
            tau, row = own[(len(own) - 1) // 2]
            values = [row.scores.get(entry.architecture) for entry in truth.rows]
            chosen[method] = {"seed": row.seed, "tau": tau, "scores": values}
    return {
        "architectures": [str(row.architecture) for row in truth.rows],
        "parameters": [row.parameters for row in truth.rows],
        "flops": [row.flops for row in truth.rows],
        "losses": truth.losses.tolist(),
        "methods": chosen,
    }
