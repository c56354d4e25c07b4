"""What the losses of training alone say by themselves: their noise, and what ranks them free."""

from __future__ import annotations

from typing import Any

import numpy as np

from magicbert.ranking.baselines import (
    explained_share,
    fitted_counts,
    operator_multiset,
    random_tau_sd,
    trivial_scores,
)
from magicbert.ranking.ceiling import Ceiling, noise_ceiling
from magicbert.ranking.correlation import kendall_tau, spearman_rho
from magicbert.ranking.fidelity import FEWEST, Truth, figure, plain, tau_within
from magicbert.ranking.shared_error import operator_worths
from magicbert.ranking.table import Table


def truth_parts(table: Table, truth: Truth, budget: str) -> dict[str, Any]:
    """Returns noise ceilings, trivial rankings and structure at one budget, as JSON data.

    Args:
        table: the benchmark.
        truth: its losses at the budget.
        budget: of training alone.
    """
    averaged = [len(row.by_seed("loss", budget)) for row in truth.rows]
    complete, losses = table.matrix("loss", budget)
    groups = [operator_multiset(row.architecture) for row in complete]
    return {
        "ceiling": ceiling_part(noise_ceiling(losses, averaged=averaged)),
        "ceiling_same_operators": ceiling_part(
            noise_ceiling(losses, groups=groups, averaged=averaged)
        ),
        "baselines": baselines_part(truth),
        "structure": structure_part(truth),
        "worths": operator_worths([row.architecture for row in truth.rows], truth.losses),
    }


def ceiling_part(ceiling: Ceiling | None) -> dict[str, Any] | None:
    """Returns the noise ceiling as JSON data."""
    if ceiling is None or not np.isfinite(ceiling.between_seeds.value):
        return None
    return {
        "num_seeds": ceiling.num_seeds,
        "num_architectures": ceiling.num_architectures,
        **figure("between_seeds", ceiling.between_seeds),
        **figure("attainable", ceiling.attainable),
    }


def baselines_part(truth: Truth) -> list[dict[str, Any]]:
    """Returns the rankings that need no supernet."""
    if len(truth) < FEWEST:
        return []
    return [
        {
            "name": name,
            **figure("tau", kendall_tau(scores, truth.losses)),
            **figure("spearman", spearman_rho(scores, truth.losses)),
            "tau_same_operators": tau_within(truth, scores, "operators"),
            "tau_same_parameters": tau_within(truth, scores, "parameters"),
        }
        for name, scores in trivial_scores(truth.rows).items()
    ]


def structure_part(truth: Truth) -> dict[str, Any]:
    """Returns how much of the true order the numbers of the operators decide."""
    fit = fitted_counts(truth.rows, truth.losses)
    size = len(truth)
    return {
        "random_tau_sd": random_tau_sd(size) if size >= FEWEST else None,
        "share_of_operators": plain(explained_share(truth.losses, truth.groups("operators"))),
        "share_of_parameters": plain(explained_share(truth.losses, truth.groups("parameters"))),
        "fitted_counts": None if fit is None else figure("tau", kendall_tau(fit, truth.losses)),
    }
