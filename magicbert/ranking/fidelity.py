"""How well one ranking of architectures agrees with the losses of training each of them alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from magicbert.bootstrap import Estimate
from magicbert.ranking.baselines import operator_multiset
from magicbert.ranking.correlation import Pairs, kendall_tau, permutation_p_value, spearman_rho
from magicbert.ranking.table import Table
from magicbert.ranking.table_row import TableRow
from magicbert.ranking.top import regret, top_overlap
from magicbert.space import Architecture

FIRST_CHOICES = 10
FEWEST = 3
Values = NDArray[np.float64]


@dataclass(frozen=True)
class Truth:
    """What a ranking is held against: losses (or negative scores) of training alone.

    Attributes:
        rows: architectures with their costs.
        losses: one per row, mean over its seeds; lower is better.
    """

    rows: tuple[TableRow, ...]
    losses: Values

    @classmethod
    def of_losses(cls, table: Table, budget: str) -> Truth:
        """Returns the mean losses of every architecture that was trained with a budget."""
        return cls._of(table, "loss", budget, 1.0)

    @classmethod
    def of_scores(cls, table: Table, task: str) -> Truth:
        """Returns the mean downstream scores, negated, so that lower is better here too."""
        return cls._of(table, "score", task, -1.0)

    @classmethod
    def _of(cls, table: Table, kind: str, name: str, sign: float) -> Truth:
        rows = table.measured(kind, name)
        means = [row.mean(kind, name) for row in rows]
        return cls(rows, sign * np.array(means, dtype=np.float64))

    def __len__(self) -> int:
        return len(self.rows)

    def beside(self, scores: Mapping[Architecture, float]) -> tuple[Truth, Values]:
        """Returns the part of the truth that has scores, and the scores in its order."""
        known = [i for i, row in enumerate(self.rows) if row.architecture in scores]
        part = Truth(tuple(self.rows[i] for i in known), self.losses[known])
        return part, np.array([scores[row.architecture] for row in part.rows], dtype=np.float64)

    def groups(self, kind: str) -> list[Any]:
        """Returns what pairs must share to be compared: ``operators`` or ``parameters``."""
        if kind == "operators":
            return [operator_multiset(row.architecture) for row in self.rows]
        return [row.parameters for row in self.rows]


def fidelity(truth: Truth, scores: Values, *, seed: int = 0) -> dict[str, Any]:
    """Returns every figure of one ranking as JSON data; ``None`` where it is not defined.

    Args:
        truth: losses of training alone.
        scores: of the ranking, in the order of the truth; lower is better.
        seed: of resampling and permutations.
    """
    losses, size = truth.losses, len(truth)
    if size < FEWEST:
        return {"num_architectures": size}
    choices = min(FIRST_CHOICES, size)
    return {
        "num_architectures": size,
        **figure("tau", kendall_tau(scores, losses, seed=seed)),
        "p_value": permutation_p_value(scores, losses, seed=seed),
        **figure("spearman", spearman_rho(scores, losses, seed=seed)),
        "tau_same_operators": tau_within(truth, scores, "operators"),
        "tau_same_parameters": tau_within(truth, scores, "parameters"),
        "top_10_overlap": top_overlap(scores, losses, choices),
        "regret_1": regret(scores, losses),
        "regret_10": regret(scores, losses, choices),
    }


def tau_within(truth: Truth, scores: Values, kind: str) -> float | None:
    """Returns tau over pairs of one group only; ``None`` where no such pair can be compared."""
    return plain(Pairs.of(scores, truth.losses, truth.groups(kind)).tau())


def figure(name: str, estimate: Estimate) -> dict[str, float | None]:
    """Returns an estimate as ``name``, ``name_low`` and ``name_high``."""
    return {
        name: plain(estimate.value),
        f"{name}_low": plain(estimate.low),
        f"{name}_high": plain(estimate.high),
    }


def plain(value: float) -> float | None:
    """Returns a figure as JSON can hold it: one that is not defined is ``None``."""
    return float(value) if np.isfinite(value) else None
