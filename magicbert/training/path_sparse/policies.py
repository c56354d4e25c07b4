"""What a step does to the operators that were not sampled: three policies, two for comparison."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from magicbert.training.path_sparse.groups import ParameterGroup

if TYPE_CHECKING:
    from magicbert.training.path_sparse.rules import UpdateRule

# path-sparse:   nothing of them changes, as in torch with ``grad=None``.
# shared-step:   nothing of them changes, but bias correction counts all steps, not the operator's.
# zero-gradient: they are stepped with a gradient of zero, as stock ZeRO-1 and 2 do: momentum goes
#                on moving them, decay goes on, counters run.
Policy = Literal["path-sparse", "shared-step", "zero-gradient"]


def with_zero_gradients(
    every_group: Sequence[ParameterGroup],
    groups: Sequence[ParameterGroup],
    gradients: Sequence[Tensor],
) -> tuple[list[ParameterGroup], list[Tensor]]:
    """Adds the groups that have no gradient, with one of zeros."""
    sampled = {group["name"] for group in groups}
    others = [group for group in every_group if group["name"] not in sampled]
    zeros = [torch.zeros_like(group["params"][0].detach()) for group in others]
    return [*groups, *others], [*gradients, *zeros]


def share_steps(rule: UpdateRule, groups: Sequence[ParameterGroup], not_finite: Tensor) -> None:
    """Sets the groups' step counters to the largest of all, unless the step will be skipped.

    What all paths share is stepped always, so the largest counter is the number of steps taken.
    """
    every = [state["step"] for state in rule.state.values()]
    largest = torch.stack(every).max()
    for counter in rule.moments(groups, "step"):
        counter.copy_(torch.where(not_finite.bool(), counter, largest))
