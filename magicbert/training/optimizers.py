"""From a configuration to a torch optimizer."""

from __future__ import annotations

import torch

from magicbert.config.sections import OptimizerSection
from magicbert.training.path_sparse.adamw import SparseAdamW
from magicbert.training.path_sparse.groups import ParameterGroup
from magicbert.training.path_sparse.lamb import SparseLamb
from magicbert.training.path_sparse.rules import UpdateRule

RULES: dict[str, type[UpdateRule]] = {"adamw": SparseAdamW, "lamb": SparseLamb}


def build_update_rule(groups: list[ParameterGroup], section: OptimizerSection) -> UpdateRule:
    """Returns the rule by which the path-sparse engine steps the groups of a supernet."""
    return RULES[section.name](
        groups,
        lr=section.learning_rate,
        betas=(section.beta1, section.beta2),
        eps=section.epsilon,
        policy=section.policy,
    )


def build_stock_adamw(groups: list[ParameterGroup], section: OptimizerSection) -> torch.optim.AdamW:
    """Returns torch's AdamW, for stock DeepSpeed."""
    return torch.optim.AdamW(
        groups,
        lr=section.learning_rate,
        betas=(section.beta1, section.beta2),
        eps=section.epsilon,
        fused=True,
    )
