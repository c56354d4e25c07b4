"""Reading a toy supernet whose weights ZeRO stage 3 has partitioned, ours or DeepSpeed's own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import deepspeed
from deepspeed.runtime.zero.stage3 import DeepSpeedZeroOptimizer_Stage3
from torch import Tensor
from toy_tenant import OPERATORS

from magicbert.space import Architecture
from magicbert.training.engine import TrainingEngine
from magicbert.training.path_sparse.partitioned import PathSparsePartitionedOptimizer
from magicbert.training.path_sparse.state import read_state


@contextmanager
def whole(engine: TrainingEngine) -> Iterator[None]:
    """Makes every operator's weights readable for the block, at any stage."""
    supernet = engine.module.supernet
    with ExitStack() as stack:
        if isinstance(engine.optimizer, PathSparsePartitionedOptimizer):
            for name in OPERATORS:
                path = Architecture((name,) * supernet.space.num_layers)
                stack.enter_context(engine.gathered(path))
        elif isinstance(engine.optimizer, DeepSpeedZeroOptimizer_Stage3):
            stack.enter_context(deepspeed.zero.GatheredParameters(list(supernet.parameters())))
        yield


def state_of(engine: TrainingEngine) -> dict[str, Tensor]:
    """Masters, moments and counters of this rank, as ``group:part``."""
    optimizer: Any = engine.optimizer
    if isinstance(optimizer, PathSparsePartitionedOptimizer) or not isinstance(
        optimizer, DeepSpeedZeroOptimizer_Stage3
    ):
        return read_state(optimizer)
    parts = {}
    masters = optimizer.fp32_partitioned_groups_flat
    for group, master in zip(optimizer.param_groups, masters, strict=True):
        parts[f"{group['name']}:master"] = master.detach()
        for part, value in optimizer.state.get(master, {}).items():
            parts[f"{group['name']}:{part}"] = value
    return parts
