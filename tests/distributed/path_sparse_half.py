"""fp16 where the accelerator has it: an overflow leaves every bit and counter untouched."""

from __future__ import annotations

from typing import Any

import torch
from path_sparse_setting import Setting, accumulate, build_engine, paths
from torch import Tensor

from magicbert.errors import UserError
from magicbert.training.engine import TrainingEngine
from magicbert.training.path_sparse.state import read_state
from magicbert.training.starting import environment

SETTING = Setting(precision="fp16")


def bits(engine: TrainingEngine) -> dict[str, Tensor]:
    everything = engine.module.state_dict() | read_state(engine.optimizer)
    return {name: value.detach().clone() for name, value in everything.items()}


def changed_by_step(engine: TrainingEngine, scale: float, rank: int, num_ranks: int) -> list[str]:
    """Names of what a step with this loss scale changed; new state counts unless it is zero."""
    engine.optimizer.loss_scaler.cur_scale = scale
    before = bits(engine)
    accumulate(engine, SETTING, 0, paths(1)[0], rank, num_ranks)
    engine.step()
    return [
        name
        for name, value in bits(engine).items()
        if not torch.equal(before.get(name, torch.zeros_like(value)), value)
    ]


def half_precision(rank: int, num_ranks: int) -> dict[str, Any]:
    try:
        environment.check_precision("fp16")
    except UserError as error:
        return {"refused": str(error)}
    engine = build_engine(SETTING, num_ranks)
    skipped = changed_by_step(engine, 2.0**40, rank, num_ranks)
    scale = engine.optimizer.loss_scaler.cur_scale
    return {
        "skipped": skipped,
        "scale": scale,
        "trained": changed_by_step(engine, 2.0**8, rank, num_ranks),
    }
