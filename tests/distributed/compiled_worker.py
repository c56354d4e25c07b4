"""Steps through the engine with compiled operators beside steps with plain ones."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import deepspeed
import numpy as np
from path_sparse_bert import LENGTH, OPTIMIZER, ROWS, SPACE, bert_batch, bert_paths, build_bert
from path_sparse_setting import Setting, training_section
from torch import Tensor
from torch._dynamo.utils import counters

from magicbert.bert.objectives.mlm import MaskedLanguageModeling
from magicbert.config.sections import AlignmentSection
from magicbert.space import Architecture
from magicbert.supernet.supernet import Supernet
from magicbert.training.compiling import compiled_operators
from magicbert.training.engine import TrainingEngine
from magicbert.training.module import StepPlan, TrainingModule

NUM_STEPS = 8
ANCHOR = SPACE.sample(np.random.default_rng(0))


def train(
    setting: Setting, rank: int, num_ranks: int, runner: AbstractContextManager[None], net: Supernet
) -> tuple[list[float], dict[str, Tensor]]:
    module = TrainingModule(net, MaskedLanguageModeling(), AlignmentSection(num_blocks=0))
    section = training_section(setting, num_ranks, ROWS)
    engine = TrainingEngine(module, section, setting.optimizer, num_ranks=num_ranks)
    losses = []
    with runner:
        for step, path in enumerate(bert_paths(NUM_STEPS)):
            plan = StepPlan(step, path, ANCHOR, 6 * num_ranks, ROWS * LENGTH * num_ranks)
            engine.begin_step(path, OPTIMIZER.learning_rate, ANCHOR)
            loss = engine.forward(bert_batch(step, rank).to(engine.device), plan, is_last=True)[0]
            losses.append(float(loss))
            engine.backward(loss)
            engine.step()
    with engine.gathered(*(Architecture((name,) * 3) for name in SPACE.layers[0])):
        weights = {name: value.detach().clone() for name, value in net.state_dict().items()}
    return losses, weights


def compare(rank: int, num_ranks: int, folder: Path, stage: Any) -> dict[str, Any]:
    deepspeed.init_distributed(dist_backend="gloo", verbose=False)
    setting = Setting(stage=stage, micro_batches=1)
    plain_losses, plain = train(setting, rank, num_ranks, nullcontext(), build_bert())
    net = build_bert()
    losses, weights = train(
        setting, rank, num_ranks, compiled_operators(net, backend="aot_eager"), net
    )
    errors = {name: float((weights[name] - plain[name]).abs().max()) for name in plain}
    return {
        "losses": max(abs(a - b) for a, b in zip(losses, plain_losses, strict=True)),
        # The gradient of a key's bias is zero: AdamW makes steps of rounding errors.
        "weights": max(v for name, v in errors.items() if "query_key_value.bias" not in name),
        "compiled": int(counters["stats"]["unique_graphs"]),
        "breaks": dict(counters["graph_break"]),
    }
