"""A DeepSpeed engine for one supernet, in the sparse policy or, to compare, the stock one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Any, Literal

import deepspeed
import torch
from torch import Tensor

from magicbert.config.deepspeed_dict import deepspeed_dict
from magicbert.config.sections import OptimizerSection, TrainingSection
from magicbert.space import Architecture
from magicbert.training.module import TrainingModule
from magicbert.training.optimizers import build_stock_adamw, build_update_rule
from magicbert.training.path_sparse.engine import build_path_sparse_engine
from magicbert.training.path_sparse.groups import parameter_groups
from magicbert.training.path_sparse.replicated import PathSparseReplicatedOptimizer

Policy = Literal["path-sparse", "stock"]


class TrainingEngine:
    """One optimizer step at a time over DeepSpeed's engine.

    Args:
        module: supernet and losses; cast to the training precision.
        training: batch sizes, precision and ZeRO stage.
        optimizer: the update rule, its settings, and its policy for unsampled operators.
        num_ranks: ranks of the process group, which must stand.
        policy: ``path-sparse``, or ``stock`` for DeepSpeed as it comes, which also moves
            operators that were not sampled (kept to measure and to test against).
    """

    def __init__(
        self,
        module: TrainingModule,
        training: TrainingSection,
        optimizer: OptimizerSection,
        *,
        num_ranks: int,
        policy: Policy = "path-sparse",
    ) -> None:
        self.module = module
        groups = parameter_groups(module.supernet, optimizer.weight_decay)
        config = deepspeed_dict(
            training,
            optimizer,
            num_ranks=num_ranks,
            num_parameters=sum(p.numel() for p in module.parameters()),
        )
        if policy == "stock":
            # Stock stages 0 and 1 know no bf16 gradients summed in fp32.
            config.pop("data_types")
            adamw = build_stock_adamw(groups, optimizer)
            self.engine, *_ = deepspeed.initialize(model=module, optimizer=adamw, config=config)
        else:
            rule = build_update_rule(groups, optimizer)
            self.engine = build_path_sparse_engine(module, rule, config)
        self._begin: Callable[[Architecture, Architecture | None], None] = getattr(
            self.engine, "begin_step", lambda architecture, anchor: None
        )
        self._gathered: Callable[[Architecture], AbstractContextManager[None]] = getattr(
            self.engine, "gathered", lambda architecture: nullcontext()
        )

    @property
    def device(self) -> torch.device:
        """Where the model stands."""
        return torch.device(self.engine.device)

    @property
    def loss_scale(self) -> float:
        """What the coming backward multiplies the loss by; 1 but for fp16."""
        # Stock DeepSpeed has no scaler in fp32.
        scaler = getattr(self.engine.optimizer, "loss_scaler", None)
        return 1.0 if scaler is None else float(scaler.cur_scale)

    @property
    def optimizer(self) -> Any:
        """DeepSpeed's optimizer wrapper."""
        return self.engine.optimizer

    def begin_step(
        self,
        architecture: Architecture,
        learning_rate: float,
        anchor: Architecture | None = None,
    ) -> None:
        """Opens an optimizer step on one path, aligned to another or to none."""
        self._begin(architecture, anchor)
        for group in self.engine.optimizer.param_groups:
            group["lr"] = learning_rate

    def backward(self, loss: Tensor) -> None:
        """Adds the gradients of one micro-batch; the last one reduces them over ranks.

        The loss arrives divided by the global count, so DeepSpeed must not divide again.
        """
        self.engine.backward(loss, scale_wrt_gas=False)

    def forward(self, *inputs: Any, is_last: bool) -> Any:
        """Runs the module; ``is_last`` says that the step's last micro-batch is coming."""
        self.engine.set_gradient_accumulation_boundary(is_last)
        return self.engine(*inputs)

    def step(self) -> Tensor:
        """Updates the path's weights; returns the gradient norm, on the device.

        Stock DeepSpeed knows no norm at stage 0 in fp32: NaN.
        """
        self.engine.step()
        norm = self.engine.get_global_grad_norm()
        return torch.as_tensor(float("nan") if norm is None else norm)

    @property
    def is_replicated(self) -> bool:
        """Whether every rank holds the whole optimizer state (stage 0)."""
        return isinstance(self.engine.optimizer, PathSparseReplicatedOptimizer)

    @contextmanager
    def gathered(self, *architectures: Architecture) -> Iterator[None]:
        """Lets the block read the weights of some paths between two steps; all ranks enter it.

        Only ZeRO stage 3 has anything to do. Inside, ranks may run the paths unequally often.
        """
        with ExitStack() as stack:
            for architecture in architectures:
                stack.enter_context(self._gathered(architecture))
            yield

    @torch.no_grad()
    def restore_masters(self) -> None:
        """Turns the model into its fp32 masters; training is over then."""
        if self.engine.is_partitioned:
            self.engine.optimizer.dismantle()
            self.module.float()
        elif self.engine.bfloat16_enabled() or self.engine.fp16_enabled():
            weights = self.engine.optimizer.gather_masters()
            self.module.float()
            for parameter, value in weights.items():
                parameter.data.copy_(value)
