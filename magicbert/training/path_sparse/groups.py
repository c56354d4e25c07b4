"""Parameter groups: one per (layer, operator), so that a path is a set of groups."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from torch import nn

from magicbert.space import Architecture
from magicbert.supernet.supernet import Supernet

# One entry of ``torch.optim.Optimizer.param_groups``; the dictionary form is torch's.
ParameterGroup: TypeAlias = dict[str, Any]

SHARED = "shared"


def parameter_groups(supernet: Supernet, weight_decay: float) -> list[ParameterGroup]:
    """Returns the groups of a supernet, each with its name, its owner and its parameters' names.

    The parameters of one owner (an operator of a layer, or what all paths share) make up to two
    groups: matrices and tables are decayed; vectors (biases and the gains of norms) are not.

    Args:
        supernet: the model; every parameter lands in exactly one group.
        weight_decay: decay of the decayed groups.
    """
    groups = split_by_decay(SHARED, supernet.shared_parameters(), weight_decay)
    for layer, names in enumerate(supernet.space.layers):
        for name in names:
            parameters = supernet.operator_parameters(layer, name)
            groups += split_by_decay(operator_key(layer, name), parameters, weight_decay)
    return groups


def split_by_decay(
    owner: str, named: Iterable[tuple[str, nn.Parameter]], weight_decay: float
) -> list[ParameterGroup]:
    """Returns one group of decayed and one of other parameters; an empty one is left out."""
    trained = [(name, parameter) for name, parameter in named if parameter.requires_grad]
    groups: list[ParameterGroup] = []
    for kind, decay in (("decay", weight_decay), ("plain", 0.0)):
        members = [item for item in trained if (item[1].ndim > 1) == (kind == "decay")]
        if members:
            groups.append(
                {
                    "params": [parameter for _, parameter in members],
                    "parameter_names": [name for name, _ in members],
                    "name": f"{owner}/{kind}",
                    "owner": owner,
                    "is_matrix": kind == "decay",
                    "weight_decay": decay,
                }
            )
    return groups


def operator_key(layer: int, name: str) -> str:
    """Names the owner of an operator's groups, such as ``layers.3.ffn``."""
    return f"layers.{layer}.{name}"


@dataclass(frozen=True)
class GroupIndex:
    """Which groups a path trains.

    Attributes:
        names: name of each group, in the optimizer's order.
        by_owner: numbers of the groups of each owner.
    """

    names: tuple[str, ...]
    by_owner: dict[str, tuple[int, ...]]

    @classmethod
    def of(cls, groups: Sequence[ParameterGroup]) -> GroupIndex:
        """Reads the index off parameter groups."""
        by_owner: dict[str, tuple[int, ...]] = {}
        for number, group in enumerate(groups):
            by_owner[group["owner"]] = (*by_owner.get(group["owner"], ()), number)
        return cls(tuple(group["name"] for group in groups), by_owner)

    def of_path(self, architecture: Architecture) -> tuple[int, ...]:
        """Returns the numbers of the shared groups and of the path's operators, ascending.

        An operator without parameters has no group and needs none.
        """
        owners = [SHARED, *(operator_key(i, name) for i, name in enumerate(architecture))]
        return tuple(number for owner in owners for number in self.by_owner.get(owner, ()))
