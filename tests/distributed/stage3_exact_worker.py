"""What the ranks of test_path_sparse_stage3_exact.py run: the cells of stage 3, and the mutant."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from path_sparse_setting import Setting
from path_sparse_worker import placement_faults, start, train

# Without momentum and decay a zero gradient moves nothing: what moves is a stale gradient.
STILL = {"beta1": 0.0, "weight_decay": 0.0}
CELLS = (
    Setting(3, "fp32", False, 3, 0.5), Setting(3, "bf16", False, 3, 0.0),
    Setting(3, "fp32", True, 1, 0.5), Setting(3, "bf16", True, 3, 0.5),
)  # fmt: skip
LAMB = Setting(3, "bf16", rule="lamb")
POLICIES = (Setting(3, policy="shared-step"), Setting(3, policy="zero-gradient"))


def check_everything(rank: int, num_ranks: int, folder: Path, arguments: Any) -> dict[str, Any]:
    start()
    return {
        "cells": {str(cell): train(cell, rank, num_ranks) for cell in CELLS},
        "lamb": train(LAMB, rank, num_ranks, 20),
        "policies": {cell.policy: train(cell, rank, num_ranks, 15) for cell in POLICIES},
        "still": train(Setting(3, **STILL), rank, num_ranks, 12),  # type: ignore[arg-type]
        "stock": train(Setting(3, stock=True), rank, num_ranks, 12),
        "still, stock": train(
            Setting(3, stock=True, **STILL),  # type: ignore[arg-type]
            rank, num_ranks, 12,
        ),
        "placement": {str(cell): placement_faults(num_ranks, cell) for cell in CELLS[:2]},
    }  # fmt: skip


def check_few(rank: int, num_ranks: int, folder: Path, arguments: Any) -> dict[str, Any]:
    """A cheap check for many ranks."""
    start()
    return {"cells": {str(cell): train(cell, rank, num_ranks, 15) for cell in CELLS[::3]}}
