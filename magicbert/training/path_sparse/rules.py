"""What an update rule is: how masters of some groups move, given their gradients."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from deepspeed import comm as dist
from deepspeed.accelerator import get_accelerator
from torch import Tensor

from magicbert.training.path_sparse.groups import ParameterGroup
from magicbert.training.path_sparse.placement import Piece
from magicbert.training.path_sparse.policies import Policy


@dataclass(frozen=True)
class Shards:
    """How masters are spread over ranks.

    Attributes:
        pieces: by group number, where this rank's master holds which parameter.
        process_group: the ranks that hold the other pieces; ``None`` = this rank holds all.
    """

    pieces: Callable[[int], tuple[Piece, ...]]
    process_group: object | None

    def sum(self, values: Tensor) -> Tensor:
        """Returns the sum over ranks; values on the host travel by the device of the group."""
        if self.process_group is None:
            return values
        total = values.to(get_accelerator().current_device_name())
        dist.all_reduce(total, group=self.process_group)
        return total.to(values.device)


class UpdateRule(torch.optim.Optimizer):
    """A torch optimizer that steps the groups it is given and touches no other.

    Args:
        groups: as `parameter_groups` makes them.
        lr: learning rate; the loop sets it anew at every step.
        betas: decay of the first and of the second moment.
        eps: added to the root of the second moment.
        policy: what happens to operators that were not sampled.
    """

    def __init__(
        self,
        groups: list[ParameterGroup],
        *,
        lr: float,
        betas: tuple[float, float],
        eps: float,
        policy: Policy = "path-sparse",
    ) -> None:
        super().__init__(groups, {"lr": lr, "betas": betas, "eps": eps})
        self.policy = policy

    def prepare(self, groups: Sequence[ParameterGroup]) -> None:
        """Gives moments and a step counter to masters that have none yet."""
        for group in groups:
            master = group["params"][0]
            if master not in self.state:
                self.state[master] = {
                    "step": torch.zeros((), dtype=torch.float32, device=master.device),
                    "exp_avg": torch.zeros_like(master),
                    "exp_avg_sq": torch.zeros_like(master),
                }

    def moments(self, groups: Sequence[ParameterGroup], part: str) -> list[Tensor]:
        """Returns one kind of state (``step``, ``exp_avg``, ``exp_avg_sq``) of the groups."""
        return [self.state[group["params"][0]][part] for group in groups]

    def step_groups(
        self,
        groups: Sequence[ParameterGroup],
        gradients: Sequence[Tensor],
        divisor: Tensor | None,
        not_finite: Tensor,
        shards: Shards,
    ) -> None:
        """Takes one step on the masters of some groups; `prepare` was called for them.

        Args:
            groups: each with a single flat master.
            gradients: fp32, shaped as the masters, beside them in memory; may be overwritten.
            divisor: what gradients are to be divided by (loss scale, clipping); ``None`` = 1.
            not_finite: 1 if the step must change nothing, else 0.
            shards: for rules that need to know tensors whole.
        """
        raise NotImplementedError
