"""Who is measured: each contender opens a step, runs forward and backward, and steps."""

from __future__ import annotations

from typing import Any

import deepspeed
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel

from magicbert.bench.accounting import Accounting
from magicbert.bench.clock import Instant, phases
from magicbert.bench.engine.tenant import (
    BenchSupernet,
    PlainModel,
    SupernetWithLoss,
    TokenObjective,
    bench_space,
)
from magicbert.config.deepspeed_dict import stock_dict
from magicbert.config.sections import (
    AlignmentSection,
    EngineBenchSection,
    OptimizerSection,
    TrainingSection,
)
from magicbert.space import Architecture
from magicbert.training.engine import TrainingEngine
from magicbert.training.module import StepPlan, TrainingModule

OPTIMIZER = OptimizerSection(learning_rate=1e-3, clip_norm=1.0)


class Contender:
    """One way to train.

    Attributes:
        device: where it computes.
        is_lazy: whether an operator costs more when it is first sampled (its moments come to be
            then), so that every operator must be sampled before anything is timed.
    """

    device = torch.device("cpu")
    is_lazy = False

    def open(self, path: Architecture) -> None:
        """Names the path of the coming step, where that means something."""

    def forward(self, batch: Tensor, path: Architecture) -> Tensor:
        """Returns the loss."""
        raise NotImplementedError

    def backward(self, loss: Tensor) -> None:
        """Computes the gradients, and reduces them where that is done here."""
        raise NotImplementedError

    def step(self) -> None:
        """Clips, updates the weights and makes ready for the next step."""
        raise NotImplementedError

    @property
    def anchor_seconds(self) -> float | None:
        """Processor time of the anchor's forward within the latest forward, if there was one."""
        return None

    def close(self) -> None:
        """Lets go of hooks that would keep the model alive."""

    def timed_step(self, batch: Tensor, path: Architecture) -> dict[str, dict[str, float]]:
        """Makes one step; returns milliseconds by clock and phase."""
        batch = batch.to(self.device)
        marks = [Instant.now(self.device)]
        self.open(path)
        marks.append(Instant.now(self.device))
        loss = self.forward(batch, path)
        marks.append(Instant.now(self.device))
        self.backward(loss)
        marks.append(Instant.now(self.device))
        self.step()
        marks.append(Instant.now(self.device))
        times = phases(marks)
        if self.anchor_seconds is not None:
            times["cpu"]["anchor_forward"] = 1e3 * self.anchor_seconds
        return times

    def counted_step(self, batch: Tensor, path: Architecture) -> dict[str, dict[str, Any]]:
        """Makes one step; returns by phase what it did to memory and to the wire."""
        batch = batch.to(self.device)
        with Accounting() as forward:
            self.open(path)
            loss = self.forward(batch, path)
        with Accounting() as backward:
            self.backward(loss)
        with Accounting() as step:
            self.step()
        counted = {"forward": forward, "backward": backward, "step": step}
        return {phase: accounting.summary() for phase, accounting in counted.items()}


class PathSparse(Contender):
    """magicbert: the engine that ``magicbert pretrain`` uses.

    Args:
        setting: sizes.
        num_candidates: operators per layer.
        stage: ZeRO stage.
        num_ranks: ranks of the process group, which stands.
        optimizer: AdamW's settings.
    """

    is_lazy = True

    def __init__(
        self,
        setting: EngineBenchSection,
        num_candidates: int,
        stage: int,
        num_ranks: int,
        optimizer: OptimizerSection = OPTIMIZER,
    ) -> None:
        supernet = BenchSupernet(bench_space(setting, num_candidates), setting.hidden_size)
        module = TrainingModule(supernet, TokenObjective(), AlignmentSection())
        training = TrainingSection(
            rows_per_step=setting.rows * num_ranks,
            rows_per_micro_batch=setting.rows,
            precision="fp32",
            zero_stage=stage,  # type: ignore[arg-type]
        )
        self.engine = TrainingEngine(module, training, optimizer, num_ranks=num_ranks)
        self.device = self.engine.device
        self.num_terms = setting.rows * setting.length * num_ranks

    def open(self, path: Architecture, anchor: Architecture | None = None) -> None:
        """Names the path, and the one it is aligned to, and sets the learning rate."""
        self.engine.begin_step(path, OPTIMIZER.learning_rate, anchor)

    def forward(
        self, batch: Tensor, path: Architecture, anchor: Architecture | None = None
    ) -> Tensor:
        """Returns the loss, with the alignment to an anchor's block outputs if there is one."""
        plan = StepPlan(0, path, anchor, self.num_terms, self.num_terms)
        loss: Tensor = self.engine.forward(batch, plan, is_last=True)[0]
        return loss

    def backward(self, loss: Tensor) -> None:
        """Runs the engine's backward."""
        self.engine.backward(loss)

    def step(self) -> None:
        """Runs the engine's step."""
        self.engine.step()

    def close(self) -> None:
        """Removes DeepSpeed's hooks."""
        self.engine.engine.destroy()


class Aligned(Contender):
    """MAGIC-A on the same engine: each step is aligned to an anchor path.

    Args:
        engine: the contender whose engine is used.
        anchor: the anchor.
    """

    def __init__(self, engine: PathSparse, anchor: Architecture) -> None:
        self.engine, self.anchor, self.device = engine, anchor, engine.device

    def open(self, path: Architecture) -> None:
        """Names path and anchor."""
        self.engine.open(path, self.anchor)

    def forward(self, batch: Tensor, path: Architecture) -> Tensor:
        """Runs anchor and path."""
        return self.engine.forward(batch, path, self.anchor)

    def backward(self, loss: Tensor) -> None:
        """Runs the engine's backward."""
        self.engine.backward(loss)

    def step(self) -> None:
        """Runs the engine's step."""
        self.engine.step()

    @property
    def anchor_seconds(self) -> float | None:
        """What the anchor's forward took."""
        supernet = self.engine.engine.module.supernet
        assert isinstance(supernet, BenchSupernet)
        return supernet.anchor_seconds


class StockDeepSpeed(Contender):
    """DeepSpeed as it comes, with torch's AdamW in one parameter group.

    Args:
        model: returns the mean loss of ``(batch, path)``.
        setting: sizes.
        stage: ZeRO stage.
        is_fused: torch's fused AdamW, or the one that ``"torch_adam": true`` brings.
    """

    def __init__(
        self, model: nn.Module, setting: EngineBenchSection, stage: int, *, is_fused: bool = True
    ) -> None:
        rate, decay = OPTIMIZER.learning_rate, OPTIMIZER.weight_decay
        adamw = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=decay, fused=is_fused)
        config = stock_dict(stage, setting.rows, OPTIMIZER.clip_norm)
        before = functional.linear
        self.engine, *_ = deepspeed.initialize(model=model, optimizer=adamw, config=config)
        # Stage 3 replaces torch's function for the whole process; here it is for this engine only.
        self.linear = functional.linear
        vars(functional)["linear"] = before
        self.device = torch.device(self.engine.device)

    def forward(self, batch: Tensor, path: Architecture) -> Tensor:
        """Runs the engine's forward."""
        before = functional.linear
        vars(functional)["linear"] = self.linear
        try:
            loss: Tensor = self.engine(batch, path)
        finally:
            vars(functional)["linear"] = before
        return loss

    def backward(self, loss: Tensor) -> None:
        """Runs the engine's backward."""
        self.engine.backward(loss)

    def step(self) -> None:
        """Runs the engine's step."""
        self.engine.step()

    def close(self) -> None:
        """Removes DeepSpeed's hooks."""
        self.engine.destroy()


class TorchDdp(Contender):
    """torch's DistributedDataParallel, which finds the unused parameters itself.

    Args:
        model: returns the mean loss of ``(batch, path)``.
        device: where to compute.
    """

    def __init__(self, model: nn.Module, device: torch.device) -> None:
        self.device = device
        self.model = DistributedDataParallel(model.to(device), find_unused_parameters=True)
        rate, decay = OPTIMIZER.learning_rate, OPTIMIZER.weight_decay
        self.optimizer = torch.optim.AdamW(
            model.parameters(), lr=rate, weight_decay=decay, fused=True
        )
        self._make_moments()

    def _make_moments(self) -> None:
        """Lets AdamW make all its moments, which it does where there is a gradient."""
        for parameter in self.model.parameters():
            parameter.grad = torch.zeros_like(parameter)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def forward(self, batch: Tensor, path: Architecture) -> Tensor:
        """Runs the model."""
        loss: Tensor = self.model(batch, path)
        return loss

    def backward(self, loss: Tensor) -> None:
        """Computes and reduces gradients."""
        torch.autograd.backward(loss)

    def step(self) -> None:
        """Clips, steps, and drops the gradients."""
        nn.utils.clip_grad_norm_(self.model.parameters(), OPTIMIZER.clip_norm)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)


def build_peer(
    name: str, setting: EngineBenchSection, num_candidates: int, stage: int, device: torch.device
) -> Contender:
    """Returns a contender that is not magicbert's engine, by its name in the record."""
    if name in ("plain", "plain, torch_adam"):
        is_fused = name == "plain"
        return StockDeepSpeed(PlainModel(setting), setting, stage, is_fused=is_fused)
    space = bench_space(setting, num_candidates)
    model = SupernetWithLoss(BenchSupernet(space, setting.hidden_size))
    if name == "ddp":
        return TorchDdp(model, device)
    assert name == "stock", name
    return StockDeepSpeed(model, setting, stage)
