"""Stage 0: every rank holds all state; gradients are reduced and stepped for the path alone."""

from __future__ import annotations

from typing import Any

import torch
from deepspeed.runtime.base_optimizer import ZeROOptimizer
from deepspeed.runtime.fp16.loss_scaler import CreateLossScaler
from torch import Tensor

from magicbert.space import Architecture
from magicbert.training.path_sparse.groups import GroupIndex, ParameterGroup
from magicbert.training.path_sparse.placement import Piece, cut_group
from magicbert.training.path_sparse.rules import UpdateRule
from magicbert.training.path_sparse.update import SparseUpdate


class PathSparseReplicatedOptimizer(ZeROOptimizer):  # type: ignore[misc]
    """fp32 masters of whole groups, flat, beside model weights of any precision.

    It keeps the layout of the sharded optimizer with a single partition, so that checkpoints and
    inspection read both alike. Gradients are accumulated over micro-batches in fp32.

    Args:
        init_optimizer: the update rule, over `parameter_groups`; its parameters become the flat
            masters.
        clip_norm: largest norm of the gradient; 0 = no clipping.
        loss_scale: arguments of DeepSpeed's loss scaler (fp16 only scales).
    """

    def __init__(
        self, init_optimizer: UpdateRule, clip_norm: float, loss_scale: dict[str, Any]
    ) -> None:
        super().__init__()
        self.optimizer = init_optimizer
        self.index = GroupIndex.of(init_optimizer.param_groups)
        self.active = tuple(range(len(init_optimizer.param_groups)))
        self.custom_loss_scaler = False
        self.torch_autocast_gradscaler = None
        self.overflow = False
        self.bit16_groups = [list(group["params"]) for group in init_optimizer.param_groups]
        dtype = self.bit16_groups[0][0].dtype
        self.loss_scaler = CreateLossScaler(dtype=dtype, **loss_scale)
        self.dynamic_loss_scale = bool(self.loss_scaler.dynamic)
        # In fp32 the model's weights are views of the masters: nothing is copied after a step.
        self.is_master_the_weight = dtype == torch.float32
        self.masters = [self._flatten(group) for group in self.bit16_groups]
        for group, master in zip(init_optimizer.param_groups, self.masters, strict=True):
            group["params"] = [master]
        self.gradients: dict[int, Tensor] = {}
        self.update = SparseUpdate(
            init_optimizer, clip_norm, process_group=None, pieces=self.pieces
        )
        self._global_grad_norm: Tensor | float = 0.0

    @property
    def param_groups(self) -> list[ParameterGroup]:
        """The groups of the rule, each with its flat master as the only parameter."""
        return self.optimizer.param_groups

    @property
    def state(self) -> Any:
        """Moments and step counters by master."""
        return self.optimizer.state

    def pieces(self, group_number: int) -> tuple[Piece, ...]:
        """Returns where the parameters of a group stand in its master: one after another."""
        sizes = [parameter.numel() for parameter in self.bit16_groups[group_number]]
        offsets = [sum(sizes[:index]) for index in range(len(sizes))]
        return cut_group(range(len(sizes)), sizes, offsets, (0, sum(sizes)))

    def _flatten(self, parameters: list[Any]) -> Tensor:
        flat = torch.cat([parameter.detach().reshape(-1).float() for parameter in parameters])
        if self.is_master_the_weight:
            for parameter, part in zip(parameters, _split(flat, parameters), strict=True):
                parameter.data = part.view_as(parameter)
        return flat.requires_grad_()

    def begin_step(self, architecture: Architecture) -> None:
        """Names the path of the coming step; every rank must name the same."""
        self.active = self.index.of_path(architecture)

    def get_grads_for_reduction(self) -> tuple[list[Tensor], dict[str, list[Tensor]]]:
        """Returns the accumulated gradients that the engine sums over ranks (no experts)."""
        self._accumulate()
        return [self.gradients[number] for number in self.active], {}

    def backward_epilogue(self, **_: Any) -> None:
        """Moves the gradients of one micro-batch into the fp32 sum."""
        self._accumulate()

    def _accumulate(self) -> None:
        """Adds and frees the parameters' gradients; a second call finds none."""
        fresh: list[tuple[Tensor, Tensor]] = []
        again: list[tuple[Tensor, Tensor]] = []
        for number in self.active:
            parameters = self.bit16_groups[number]
            pairs = again if number in self.gradients else fresh
            if number not in self.gradients:
                is_complete = all(parameter.grad is not None for parameter in parameters)
                create = torch.empty_like if is_complete else torch.zeros_like
                self.gradients[number] = create(self.masters[number].detach())
            for parameter, part in zip(
                parameters, _split(self.gradients[number], parameters), strict=True
            ):
                if parameter.grad is not None:
                    pairs.append((part, parameter.grad.reshape(-1)))
                    parameter.grad = None
        if fresh:
            torch._foreach_copy_([part for part, _ in fresh], [grad for _, grad in fresh])
        if again:
            torch._foreach_add_([part for part, _ in again], [grad for _, grad in again])

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        """Updates the active groups and writes their weights into the model."""
        groups = [self.optimizer.param_groups[number] for number in self.active]
        gradients = [self.gradients[number] for number in self.active]
        norm = self.update.step(groups, gradients, float(self.loss_scaler.cur_scale))
        self.gradients.clear()
        self._global_grad_norm = norm
        self.overflow = bool(self.dynamic_loss_scale and not torch.isfinite(norm))
        self.loss_scaler.update_scale(self.overflow)
        self.publish_weights(self.update.moved(self.active))

    @torch.no_grad()
    def publish_weights(self, numbers: tuple[int, ...]) -> None:
        """Copies masters into the model's parameters, where they are not one and the same."""
        if self.is_master_the_weight:
            return
        targets, parts = [], []
        for number in numbers:
            parameters = self.bit16_groups[number]
            targets += [parameter.data.view(-1) for parameter in parameters]
            parts += _split(self.masters[number].detach(), parameters)
        torch._foreach_copy_(targets, parts)

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Drops the gradients of the active groups; no other group has any."""
        for number in self.active:
            for parameter in self.bit16_groups[number]:
                parameter.grad = None

    def gather_masters(self) -> dict[Any, Tensor]:
        """Returns the fp32 weights of every parameter."""
        weights: dict[Any, Tensor] = {}
        for parameters, master in zip(self.bit16_groups, self.masters, strict=True):
            for parameter, part in zip(
                parameters, _split(master.detach(), parameters), strict=True
            ):
                weights[parameter] = part.view_as(parameter)
        return weights


def _split(flat: Tensor, parameters: list[Any]) -> list[Tensor]:
    """Returns the runs of a flat tensor that stand for each parameter."""
    return list(torch.split(flat, [parameter.numel() for parameter in parameters]))
