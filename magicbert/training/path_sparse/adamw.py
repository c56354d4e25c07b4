"""AdamW on the masters of some groups: torch's fused kernel, once per weight decay."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.optim.adamw import adamw

from magicbert.training.path_sparse.groups import ParameterGroup
from magicbert.training.path_sparse.rules import Shards, UpdateRule


class SparseAdamW(UpdateRule):
    """``torch.optim.AdamW(fused=True)`` whose step is told which groups to move.

    The groups of one weight decay are stepped in one call, whatever their number. Clipping,
    unscaling and skipping ride in the same kernel, so nothing here makes the host wait.
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
        of_group = {
            group["name"]: gradient for group, gradient in zip(groups, gradients, strict=True)
        }
        for decay in dict.fromkeys(group["weight_decay"] for group in groups):
            members = [group for group in groups if group["weight_decay"] == decay]
            adamw(
                [group["params"][0] for group in members],
                [of_group[group["name"]] for group in members],
                self.moments(members, "exp_avg"),
                self.moments(members, "exp_avg_sq"),
                [],
                self.moments(members, "step"),
                fused=True,
                grad_scale=divisor,
                found_inf=not_finite,
                amsgrad=False,
                beta1=self.defaults["betas"][0],
                beta2=self.defaults["betas"][1],
                lr=members[0]["lr"],
                weight_decay=decay,
                eps=self.defaults["eps"],
                maximize=False,
            )
