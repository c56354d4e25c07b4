"""Who makes steps: magicbert's engine, and plain torch around any model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn

from magicbert.bench.step.sizes import StepSize
from magicbert.bert.objectives.mlm import MaskedLanguageModeling
from magicbert.bert.supernet import BertSupernet
from magicbert.config.sections import AlignmentSection, OptimizerSection, TrainingSection
from magicbert.data.batch import TokenBatch
from magicbert.space import Architecture
from magicbert.supernet.scoring import evaluation_mode
from magicbert.training.engine import TrainingEngine
from magicbert.training.module import StepPlan, TrainingModule

OPTIMIZER = OptimizerSection(learning_rate=1e-5, clip_norm=1.0)
PRECISIONS = {torch.float32: "fp32", torch.bfloat16: "bf16"}


class EngineRunner:
    """The engine that ``magicbert pretrain`` and ``retrain`` use, on one rank.

    Args:
        supernet: with its weights; it is moved and cast.
        size: of the step.
        backend: of the alignment kernel.
    """

    def __init__(self, supernet: BertSupernet, size: StepSize) -> None:
        module = TrainingModule(supernet, MaskedLanguageModeling(), AlignmentSection())
        training = TrainingSection(
            rows_per_step=size.rows,
            rows_per_micro_batch=size.rows,
            precision=PRECISIONS[size.precision],  # type: ignore[arg-type]
        )
        self.engine = TrainingEngine(module, training, OPTIMIZER, num_ranks=1)
        self.step_number = 0

    def step(self, batch: TokenBatch, path: Architecture) -> None:
        """Makes one step."""
        count = len(batch.predicted_positions)
        plan = StepPlan(self.step_number, path, None, count, batch.segment_ids.numel())
        self.step_number += 1
        self.engine.begin_step(path, OPTIMIZER.learning_rate)
        loss = self.engine.forward(batch, plan, is_last=True)[0]
        self.engine.backward(loss)
        self.engine.step()

    def loss(self, batch: TokenBatch, path: Architecture) -> float:
        """Returns the mean loss without dropout."""
        module = self.engine.module
        with torch.no_grad(), evaluation_mode(module.supernet, path):
            found = module.objective(module.supernet, batch, path)
        return float(found.loss_sum) / found.count

    def close(self) -> None:
        """Removes DeepSpeed's hooks, which would keep the model alive."""
        self.engine.engine.destroy()


class TorchRunner:
    """A model that returns its mean loss, autocast, clipping and torch's fused AdamW.

    Args:
        model: called with whatever `step` is given.
        device: where to compute.
        precision: type of the matrix products; weights stay fp32.
        compiled: what the model is run through, such as ``torch.compile``.
    """

    def __init__(
        self,
        model: nn.Module,
        device: torch.device,
        precision: torch.dtype,
        compiled: Callable[[nn.Module], Any] = lambda model: model,
    ) -> None:
        self.model = model.to(device)
        self.run = compiled(self.model)
        self.device, self.precision = device, precision
        self.optimizer = torch.optim.AdamW(
            model.parameters(),
            lr=OPTIMIZER.learning_rate,
            weight_decay=OPTIMIZER.weight_decay,
            fused=True,
        )

    def autocast(self) -> AbstractContextManager[Any]:
        """Returns the context that forwards run in."""
        is_narrow = self.precision != torch.float32
        return torch.autocast(self.device.type, self.precision, enabled=is_narrow)

    def step(self, *inputs: Any, **named: Any) -> None:
        """Makes one step."""
        with self.autocast():
            loss = loss_of(self.run(*inputs, **named))
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(self.model.parameters(), OPTIMIZER.clip_norm)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def loss(self, *inputs: Any, **named: Any) -> float:
        """Returns the loss without dropout."""
        self.model.eval()
        with torch.no_grad(), self.autocast():
            found = float(loss_of(self.run(*inputs, **named)))
        self.model.train()
        return found


class PathLoss(nn.Module):
    """A supernet as others take it: a module that returns the mean loss of a path.

    Args:
        supernet: the model.
    """

    def __init__(self, supernet: BertSupernet) -> None:
        super().__init__()
        self.supernet = supernet

    def forward(self, batch: TokenBatch, path: Architecture) -> Tensor:
        """Returns the mean loss."""
        found = MaskedLanguageModeling()(self.supernet, batch, path)
        return found.loss_sum / found.count


def loss_of(output: Any) -> Tensor:
    """Returns the loss, of a model of transformers or one that returns nothing else."""
    loss: Tensor = output if isinstance(output, Tensor) else output.loss
    return loss


def on_device(tensors: dict[str, Tensor], device: torch.device) -> dict[str, Tensor]:
    """Returns the tensors on a device."""
    return {name: tensor.to(device) for name, tensor in tensors.items()}


def turning(items: list[Any]) -> Callable[[int], Any]:
    """Returns what gives the item of a number, modulo their count."""
    return lambda index: items[index % len(items)]


def endless(sampler: Any) -> Iterator[Architecture]:
    """Yields the paths of a sampler, step by step."""
    step, path = 0, None
    while True:
        path = sampler.next(step, path)
        yield path
        step += 1
