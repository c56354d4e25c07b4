"""One cell of the exactness matrix: an engine over the toy supernet, and the step's batches."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from toy_tenant import ToyBatch, ToyObjective, ToySource, ToySupernet, toy_space

from magicbert.config.sections import AlignmentSection, OptimizerSection, TrainingSection
from magicbert.space import Architecture
from magicbert.training.engine import TrainingEngine
from magicbert.training.module import StepPlan, TrainingModule

ROWS = 4
OPTIMIZER = OptimizerSection(
    learning_rate=1e-3, weight_decay=0.1, beta1=0.9, beta2=0.98, epsilon=1e-6
)


@dataclass(frozen=True)
class Setting:
    """What a check varies; ``stock`` = DeepSpeed as it comes."""

    stage: Literal[0, 1, 2, 3] = 1
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    offload: bool = False
    micro_batches: int = 2
    clip_norm: float = 0.5
    rule: Literal["adamw", "lamb"] = "adamw"
    policy: Literal["path-sparse", "shared-step", "zero-gradient"] = "path-sparse"
    beta1: float = OPTIMIZER.beta1
    beta2: float = OPTIMIZER.beta2
    weight_decay: float = OPTIMIZER.weight_decay
    stock: bool = False

    @property
    def optimizer(self) -> OptimizerSection:
        return replace(
            OPTIMIZER, name=self.rule, policy=self.policy, clip_norm=self.clip_norm,
            beta1=self.beta1, beta2=self.beta2, weight_decay=self.weight_decay,
        )  # fmt: skip

    @property
    def source(self) -> ToySource:
        return ToySource(ROWS, self.micro_batches)

    def __str__(self) -> str:
        usual = asdict(Setting())
        changed = {k: v for k, v in asdict(self).items() if v != usual[k] or k == "stage"}
        return " ".join(f"{key}={value}" for key, value in changed.items())


class CastingSupernet(ToySupernet):
    """The toy in the precision of its weights."""

    def enter(self, batch: ToyBatch) -> tuple[Tensor, Any]:
        return self.embed(batch.inputs.to(self.embed.weight.dtype)), None


def build_supernet() -> CastingSupernet:
    torch.manual_seed(5)
    return CastingSupernet(toy_space())


def training_section(setting: Setting, num_ranks: int, rows: int = ROWS) -> TrainingSection:
    return TrainingSection(
        rows_per_step=rows * setting.micro_batches * num_ranks,
        rows_per_micro_batch=rows,
        precision=setting.precision,
        zero_stage=setting.stage,
        offload_optimizer=setting.offload,
    )


def build_engine(setting: Setting, num_ranks: int) -> TrainingEngine:
    return TrainingEngine(
        TrainingModule(build_supernet(), ToyObjective(), AlignmentSection()),
        training_section(setting, num_ranks),
        setting.optimizer,
        num_ranks=num_ranks,
        policy="stock" if setting.stock else "path-sparse",
    )


def paths(count: int) -> list[Architecture]:
    generator = np.random.default_rng(7)
    return [toy_space().sample(generator) for _ in range(count)]


def plan_of(setting: Setting, step: int, path: Architecture, num_ranks: int) -> StepPlan:
    source = setting.source
    batches = [b for r in range(num_ranks) for b in source.step_batches(step, r, num_ranks)]
    count = sum(ToyObjective().count(batch) for batch in batches)
    return StepPlan(step, path, None, count, ROWS * setting.micro_batches * num_ranks)


def accumulate(
    engine: TrainingEngine,
    setting: Setting,
    step: int,
    path: Architecture,
    rank: int,
    num_ranks: int,
) -> Tensor:
    """Runs a step up to the optimizer; returns this rank's part of the loss."""
    plan = plan_of(setting, step, path, num_ranks)
    engine.begin_step(path, OPTIMIZER.learning_rate)
    batches = setting.source.step_batches(step, rank, num_ranks)
    total = torch.zeros(())
    for number, batch in enumerate(batches):
        loss, task, *_ = engine.forward(
            batch.to(engine.device), plan, is_last=number == len(batches) - 1
        )
        engine.backward(loss)
        total += task.cpu()
    return total
