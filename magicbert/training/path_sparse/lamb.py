"""LAMB on flat shards: each tensor's norms, summed over the ranks that hold its pieces."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from magicbert.training.path_sparse.groups import ParameterGroup
from magicbert.training.path_sparse.rules import Shards, UpdateRule


class SparseLamb(UpdateRule):
    """LAMB (You et al., "Large batch optimization for deep learning", ICLR 2020, algorithm 2).

    The AdamW direction of a tensor is scaled by ``|weights| / |direction|`` (1 where either is
    zero). As in the authors' code, vectors (biases, gains of norms), which are not decayed, are
    not scaled either. Moments are corrected for bias by the operator's own step counter.

    apex's FusedLAMB and DeepSpeed's Lamb take one norm per entry of ``group["params"]``. Over
    ZeRO's flat partitions that would be one ratio for a whole group, and another one for every
    number of ranks; so neither is used, present or not. Here the squared norms of all tensors of
    the path travel in one all-reduce.

    The step is not fused (it reads and writes more than AdamW's), and the host waits once to
    learn whether the gradient is finite.
    """

    @torch.no_grad()
    def step_groups(
        self,
        groups: Sequence[ParameterGroup],
        gradients: Sequence[Tensor],
        divisor: Tensor | None,
        not_finite: Tensor,
        shards: Shards,
    ) -> None:
        """Takes one step; see `UpdateRule.step_groups`."""
        if bool(not_finite):
            return
        if divisor is not None:
            torch._foreach_div_(list(gradients), divisor)
        self._update_moments(groups, list(gradients))
        directions = self._directions(groups)
        self._scale_by_trust(groups, directions, shards)
        torch._foreach_mul_(directions, [-group["lr"] for group in groups])
        torch._foreach_add_([group["params"][0] for group in groups], directions)

    def _update_moments(self, groups: Sequence[ParameterGroup], gradients: list[Tensor]) -> None:
        beta1, beta2 = self.defaults["betas"]
        torch._foreach_add_(self.moments(groups, "step"), 1.0)
        torch._foreach_lerp_(self.moments(groups, "exp_avg"), gradients, 1.0 - beta1)
        squares = self.moments(groups, "exp_avg_sq")
        torch._foreach_mul_(squares, beta2)
        torch._foreach_addcmul_(squares, gradients, gradients, 1.0 - beta2)

    def _directions(self, groups: Sequence[ParameterGroup]) -> list[Tensor]:
        """Returns AdamW's steps for a learning rate of 1, decay included."""
        beta1, beta2 = self.defaults["betas"]
        steps = torch.stack(self.moments(groups, "step")).double()
        mean = (1.0 - beta1**steps).float().unbind()
        root = (1.0 - beta2**steps).sqrt().float().unbind()
        below = torch._foreach_sqrt(self.moments(groups, "exp_avg_sq"))
        torch._foreach_div_(below, root)
        torch._foreach_add_(below, self.defaults["eps"])
        directions = list(torch._foreach_div(self.moments(groups, "exp_avg"), mean))
        torch._foreach_div_(directions, below)
        decays = [group["weight_decay"] for group in groups]
        masters = [group["params"][0] for group in groups]
        torch._foreach_add_(directions, torch._foreach_mul(masters, decays))
        return directions

    def _scale_by_trust(
        self, groups: Sequence[ParameterGroup], directions: list[Tensor], shards: Shards
    ) -> None:
        """Multiplies each tensor's direction by its ratio, in place."""
        weights, parts, slots, num_tensors = self._cut(groups, directions, shards)
        index = torch.tensor(slots, dtype=torch.long, device=directions[0].device)
        squares = torch.zeros(2, num_tensors, device=directions[0].device)
        if parts:
            norms = torch.stack(torch._foreach_norm(weights + parts)).view(2, -1)
            squares.index_add_(1, index, norms.square())
        of_weights, of_directions = shards.sum(squares).sqrt()
        has_both = (of_weights > 0) & (of_directions > 0)
        ratios = torch.where(has_both, of_weights / of_directions, 1.0)
        if parts:
            torch._foreach_mul_(parts, list(ratios[index].unbind()))

    def _cut(
        self, groups: Sequence[ParameterGroup], directions: list[Tensor], shards: Shards
    ) -> tuple[list[Tensor], list[Tensor], list[int], int]:
        """Returns pieces of weights and of directions, the tensor of each, and how many tensors.

        Tensors are counted over all scaled groups, so every rank counts alike.
        """
        numbers = {group["name"]: number for number, group in enumerate(self.param_groups)}
        weights, parts, slots, num_tensors = [], [], [], 0
        for group, direction in zip(groups, directions, strict=True):
            if not group["is_matrix"]:
                continue
            master = group["params"][0].detach()
            for piece in shards.pieces(numbers[group["name"]]):
                run = slice(piece.offset, piece.offset + piece.length)
                weights.append(master[run])
                parts.append(direction[run])
                slots.append(num_tensors + piece.parameter)
            num_tensors += len(group["parameter_names"])
        return weights, parts, slots, num_tensors
