"""Norm, clipping and the AdamW step over the active partitions: a few fused calls in all."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from deepspeed import comm as dist
from torch import Tensor

from magicbert.training.path_sparse.groups import ParameterGroup


class SparseUpdate:
    """Steps the masters of the active groups and leaves all other state untouched.

    The groups of one weight decay are stepped in one fused call, whatever their number. Clipping
    and unscaling ride in the same kernel, and a step with a gradient that is not finite is
    skipped on the device (weights, moments and counters keep their bits): nothing here makes the
    host wait.

    Args:
        optimizer: ``torch.optim.AdamW(fused=True)``; its parameters are the fp32 masters.
        clip_norm: largest norm of the gradient of the sampled path; 0 = no clipping.
        process_group: the ranks among which gradients are partitioned; ``None`` = every rank
            holds them whole, so the norm needs no communication.
    """

    def __init__(
        self, optimizer: torch.optim.Optimizer, clip_norm: float, process_group: object | None
    ) -> None:
        self.optimizer = optimizer
        self.clip_norm = clip_norm
        self.process_group = process_group
        self.num_skipped: Tensor | None = None

    def norm(self, gradients: Sequence[Tensor]) -> Tensor:
        """Returns the 2-norm over all gradients of all ranks, with one all-reduce."""
        norms = torch.stack(torch._foreach_norm(list(gradients)))
        square = norms.square().sum()
        if self.process_group is not None:
            dist.all_reduce(square, group=self.process_group)
        return square.sqrt()

    def step(
        self, groups: Sequence[ParameterGroup], gradients: Sequence[Tensor], loss_scale: float
    ) -> Tensor:
        """Takes one AdamW step on one master per group.

        Args:
            groups: the active groups, each with a single master parameter.
            gradients: fp32 gradient of each master, times ``loss_scale``; may be overwritten.
            loss_scale: what the loss was multiplied by.

        Returns:
            The norm before clipping, without the loss scale; not finite if the step was skipped.
        """
        norm = self.norm(gradients) / loss_scale
        divisor = torch.full_like(norm, loss_scale)
        if self.clip_norm > 0:
            divisor = divisor * ((norm + 1e-6) / self.clip_norm).clamp(min=1.0)
        not_finite = (~torch.isfinite(norm)).float()
        for group, gradient in zip(groups, gradients, strict=True):
            group["params"][0].grad = gradient
        self._fused_step(groups, divisor, not_finite)
        for group in groups:
            group["params"][0].grad = None
        self.num_skipped = not_finite if self.num_skipped is None else self.num_skipped + not_finite
        return norm

    def _fused_step(
        self, groups: Sequence[ParameterGroup], divisor: Tensor, not_finite: Tensor
    ) -> None:
        """Steps the groups merged by weight decay; ``optimizer.param_groups`` is put back."""
        merged: dict[float, ParameterGroup] = {}
        for group in groups:
            target = merged.setdefault(group["weight_decay"], {**group, "params": []})
            target["params"] += group["params"]
        every_group = self.optimizer.param_groups
        # torch's own hand-over to fused kernels, as torch.amp.GradScaler uses it.
        self.optimizer.grad_scale, self.optimizer.found_inf = divisor, not_finite  # type: ignore[attr-defined]
        self.optimizer.param_groups = list(merged.values())
        try:
            self.optimizer.step()
        finally:
            self.optimizer.param_groups = every_group
