"""The optimizer's state of one rank as named tensors: what a checkpoint's shard holds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

MASTER = "master"
MOMENTS = ("exp_avg", "exp_avg_sq", "step")
SCALE_FIELDS = ("cur_scale", "cur_iter", "last_overflow_iter", "cur_hysteresis")


def read_state(optimizer: Any) -> dict[str, Tensor]:
    """Returns masters, moments and step counters of every group, as ``group:part``.

    Args:
        optimizer: a path-sparse optimizer. The tensors are its own, not copies; an operator that
            was never sampled has no moments.
    """
    tensors = {}
    for group in optimizer.param_groups:
        master = group["params"][0]
        tensors[f"{group['name']}:{MASTER}"] = master.detach()
        for part, value in optimizer.state.get(master, {}).items():
            tensors[f"{group['name']}:{part}"] = value
    return tensors


@torch.no_grad()
def write_state(optimizer: Any, tensors: Mapping[str, Tensor]) -> None:
    """Takes over what `read_state` returned and brings the model's weights in line.

    Args:
        optimizer: built over the same groups.
        tensors: complete; a missing master is an error, missing moments mean "never sampled".
    """
    for group in optimizer.param_groups:
        master, name = group["params"][0], group["name"]
        master.copy_(tensors[f"{name}:{MASTER}"])
        moments = {part: tensors.get(f"{name}:{part}") for part in MOMENTS}
        optimizer.state.pop(master, None)
        if all(value is not None for value in moments.values()):
            optimizer.state[master] = {
                part: value.to(master.device).clone()
                for part, value in moments.items()
                if value is not None
            }
    optimizer.publish_weights(tuple(range(len(optimizer.param_groups))))


def read_scale(optimizer: Any) -> dict[str, float]:
    """Returns the state of a dynamic loss scale (fp16); empty where the scale is fixed."""
    if not optimizer.dynamic_loss_scale:
        return {}
    return {name: getattr(optimizer.loss_scaler, name) for name in SCALE_FIELDS}


def write_scale(optimizer: Any, values: dict[str, float]) -> None:
    """Takes over what `read_scale` returned."""
    for name, value in values.items():
        setattr(optimizer.loss_scaler, name, value)
