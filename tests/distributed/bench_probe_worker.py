"""What test_bench_interference.py runs: the probe's trial on a real engine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from magicbert.bench.interference.probing import ProbeTrial
from magicbert.bench.step.sizes import MODELS, StepSize
from magicbert.training.starting.environment import join_process_group


def judge_and_step(rank: int, num_ranks: int, folder: Path, arguments: Any) -> Any:
    """Judges both contenders, then makes three steps."""
    join_process_group()
    one = ProbeTrial(StepSize(MODELS["tiny"], 2, 16, torch.float32), 0, torch.device("cpu"))
    trial = one.trial()
    contenders = trial.lineup.contenders
    right = [trial.judge(contender).is_right for contender in contenders]
    path = one.previous
    before = one.engine.loss(one.batch, path)
    for number in range(3):
        contenders[1].call(number)
    after = one.engine.loss(one.batch, path)
    trial.close()
    return {
        "names": [contender.name for contender in contenders],
        "right": right,
        "before": before,
        "after": after,
    }
