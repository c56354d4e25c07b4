"""One step on the masters of the path: norm, clipping and the update, a few fused calls in all."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from magicbert.training.path_sparse.groups import ParameterGroup
from magicbert.training.path_sparse.offload import HostMemory
from magicbert.training.path_sparse.placement import Piece
from magicbert.training.path_sparse.policies import share_steps, with_zero_gradients
from magicbert.training.path_sparse.rules import Shards, UpdateRule


class SparseUpdate:
    """Steps the masters of the active groups and leaves all other state untouched.

    A step with a gradient that is not finite is skipped: weights, moments and counters keep their
    bits. Nothing depends on the ZeRO stage but the masters handed in and where their pieces are.

    Args:
        optimizer: the update rule; its parameters are the fp32 masters.
        clip_norm: largest norm of the gradient of the sampled path; 0 = no clipping.
        process_group: the ranks among which gradients are partitioned; ``None`` = every rank
            holds them whole, so norms need no communication.
        pieces: by group number, what this rank's master holds (LAMB asks for it).
        host: given, masters and moments are in host memory and gradients are copied there.
    """

    def __init__(
        self,
        optimizer: UpdateRule,
        clip_norm: float,
        process_group: object | None,
        *,
        pieces: Callable[[int], tuple[Piece, ...]],
        host: HostMemory | None = None,
    ) -> None:
        self.optimizer = optimizer
        self.clip_norm = clip_norm
        self.shards = Shards(pieces, process_group)
        self.host = host
        self.num_skipped: Tensor | None = None

    def moved(self, active: tuple[int, ...]) -> tuple[int, ...]:
        """Returns the numbers of the groups whose masters a step on ``active`` moves."""
        if self.optimizer.policy == "zero-gradient":
            return tuple(range(len(self.optimizer.param_groups)))
        return active

    def norm(self, gradients: Sequence[Tensor]) -> Tensor:
        """Returns the 2-norm over all gradients of all ranks, with one all-reduce."""
        norms = torch.stack(torch._foreach_norm(list(gradients)))
        return self.shards.sum(norms.square().sum()).sqrt()

    @torch.no_grad()
    def step(
        self, groups: Sequence[ParameterGroup], gradients: Sequence[Tensor], loss_scale: float
    ) -> Tensor:
        """Takes one step on one master per group.

        Args:
            groups: the active groups, each with a single master parameter.
            gradients: fp32 gradient of each master, times ``loss_scale``; may be overwritten.
            loss_scale: what the loss was multiplied by.

        Returns:
            The norm before clipping, without the loss scale; not finite if the step was skipped.
        """
        norm = self.norm(gradients) / loss_scale
        not_finite = (~torch.isfinite(norm)).float()
        divisor = self._divisor(norm, loss_scale)
        self.num_skipped = not_finite if self.num_skipped is None else self.num_skipped + not_finite
        if self.host is not None:
            gradients, not_finite = self.host.fetch_gradients(gradients), not_finite.cpu()
            divisor = None if divisor is None else divisor.cpu()
        if divisor is not None and divisor.device.type == "cpu" and float(divisor) == 1.0:
            # The kernel writes divided gradients back: 4 bytes a value that need not be touched.
            divisor = None
        if self.optimizer.policy == "zero-gradient":
            every = self.optimizer.param_groups
            groups, gradients = with_zero_gradients(every, groups, gradients)
        self.optimizer.prepare(groups)
        if self.optimizer.policy == "shared-step":
            share_steps(self.optimizer, groups, not_finite)
        self.optimizer.step_groups(groups, gradients, divisor, not_finite, self.shards)
        return norm

    def _divisor(self, norm: Tensor, loss_scale: float) -> Tensor | None:
        """Returns what gradients are divided by; ``None`` = 1, known without looking."""
        if self.clip_norm == 0.0:
            return None if loss_scale == 1.0 else torch.full_like(norm, loss_scale)
        return ((norm + 1e-6) / self.clip_norm).clamp(min=1.0) * loss_scale
