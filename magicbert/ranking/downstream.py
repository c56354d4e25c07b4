"""Rankings against the scores of downstream tasks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from magicbert.ranking.baselines import trivial_scores
from magicbert.ranking.ceiling import noise_ceiling
from magicbert.ranking.comparisons import variants_of
from magicbert.ranking.correlation import Pairs, kendall_tau
from magicbert.ranking.fidelity import FEWEST, Truth, figure, plain
from magicbert.ranking.seeds import over_seeds
from magicbert.ranking.study_rows import DEFAULT, SupernetRow
from magicbert.ranking.table import Table

Row = Mapping[str, Any]


def downstream_taus(row: SupernetRow, table: Table) -> dict[str, float | None]:
    """Returns tau of one supernet's scores against each task."""
    found = {}
    for task in table.names("score"):
        part, scores = Truth.of_scores(table, task).beside(row.scores)
        if len(part) >= FEWEST:
            found[task] = plain(Pairs.of(scores, part.losses).tau())
    return found


def downstream_part(
    table: Table, truth: Truth, scored: Sequence[Row], rows: Sequence[Row]
) -> list[dict[str, Any]]:
    """Returns, per task, how losses, parameters and supernets agree with its scores.

    Args:
        table: the benchmark.
        truth: losses of training alone.
        scored: one row per supernet, with ``tau_downstream``.
        rows: of the study; they name the metric of a task.
    """
    metrics = {r["task"]: r.get("metric", "") for r in rows if r["kind"] == "downstream"}
    losses = {
        row.architecture: loss for row, loss in zip(truth.rows, truth.losses.tolist(), strict=True)
    }
    found = []
    for task in table.names("score"):
        part, alone = Truth.of_scores(table, task).beside(losses)
        if len(part) < FEWEST:
            continue
        parameters = trivial_scores(part.rows)["parameters"]
        ceiling = noise_ceiling(table.matrix("score", task)[1])
        found.append({
            "task": task,
            "metric": metrics[task],
            "num_architectures": len(part),
            "seeds": list(table.seeds("score", task)),
            "between_seeds": None if ceiling is None else plain(ceiling.between_seeds.value),
            "alone": figure("tau", kendall_tau(alone, part.losses)),
            "parameters": figure("tau", kendall_tau(parameters, part.losses)),
            "methods": of_methods(scored, task),
        })  # fmt: skip
    return found


def of_methods(scored: Sequence[Row], task: str) -> list[dict[str, Any]]:
    """Returns the mean tau over seeds of each method at default settings against a task."""
    found = []
    for (method, settings), rows in variants_of(scored).items():
        taus = [row["tau_downstream"].get(task) for row in rows]
        known = [tau for tau in taus if tau is not None]
        if settings == DEFAULT and known:
            found.append({"method": method, "tau": asdict(over_seeds(known))})
    return found
