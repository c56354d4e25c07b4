"""What the ranks of test_engine_accounting.py run: steps whose bytes and messages are counted."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import torch

from magicbert.bench.engine.contenders import (
    OPTIMIZER,
    Aligned,
    Contender,
    PathSparse,
    build_peer,
)
from magicbert.bench.engine.tenant import VOCAB_SIZE, BenchSupernet, bench_space
from magicbert.config.sections import EngineBenchSection
from magicbert.space import Architecture
from magicbert.training.starting.environment import join_process_group

SETTING = EngineBenchSection(num_layers=4, hidden_size=32, rows=2, length=8)
CANDIDATES = (4, 8)
STAGES = (0, 1, 2, 3)

# The norm is taken and found small: what most steps of a run do.
UNCLIPPED = dataclasses.replace(OPTIMIZER, clip_norm=1e6)


def path_of(operator: str) -> Architecture:
    return Architecture((operator,) * SETTING.num_layers)


def count_step(contender: Contender) -> dict[str, Any]:
    """Counts a step on a path whose operators have been trained once before."""
    tokens = torch.randint(0, VOCAB_SIZE, (SETTING.rows, SETTING.length))
    for name in ("op0", "op1"):
        contender.timed_step(tokens, path_of(name))
    return contender.counted_step(tokens, path_of("op1"))


def num_parameters(candidates: int) -> dict[str, int]:
    """Parameters of one path, of its operators alone, and of the whole supernet."""
    supernet = BenchSupernet(bench_space(SETTING, candidates), SETTING.hidden_size)
    path = supernet.path_state(path_of("op1"))
    return {
        "path": sum(value.numel() for value in path.values()),
        "operators": sum(v.numel() for name, v in path.items() if name.startswith("layers.")),
        "supernet": sum(value.numel() for value in supernet.parameters()),
    }


def count_everything(rank: int, num_ranks: int, folder: Path, arguments: Any) -> dict[str, Any]:
    torch.set_num_threads(1)
    join_process_group()
    found: dict[str, Any] = {
        "parameters": {str(candidates): num_parameters(candidates) for candidates in CANDIDATES}
    }
    for stage in STAGES:
        for candidates in CANDIDATES:
            own = PathSparse(SETTING, candidates, stage, num_ranks)
            key = f"stage {stage}, {candidates} candidates"
            found[key] = count_step(own)
            aligned = Aligned(own, path_of("op2"))
            found[f"{key}, aligned"] = count_step(aligned)
            own.close()
            if candidates == CANDIDATES[0]:
                unclipped = PathSparse(SETTING, candidates, stage, num_ranks, UNCLIPPED)
                found[f"{key}, unclipped"] = count_step(unclipped)
                unclipped.close()
            stock = build_peer("stock", SETTING, candidates, stage, torch.device("cpu"))
            found[f"{key}, stock"] = count_step(stock)
            stock.close()
    return found
