"""Equally built modules as one: their weights side by side on a leading axis, one call for all.

Only what holds weights takes another form. Every other module is the tenant's own, with such parts
in the places of its former ones: an operator is written once, for one model and for many.

Shapes: G models, B rows of each, N positions of each, I input width, O output width.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Builds the stacked form of modules of one class.
Form: TypeAlias = Callable[[Sequence[Any]], nn.Module]


def stack_modules(modules: Sequence[nn.Module], forms: dict[type[nn.Module], Form]) -> nn.Module:
    """Returns a module that computes what each of the modules computes on its share of the rows.

    Its input is that of all modules, one after the other, on the first axis, and so is its output.
    Its parameters have the names of theirs and a leading axis; the modules keep their own.

    Args:
        modules: of one structure and one device, at least one.
        forms: stacked forms beside those of linear layers, norms and tables.

    Raises:
        TypeError: a module with weights has no stacked form.
    """
    first = modules[0]
    for kind, form in (*forms.items(), *FORMS.items()):
        if isinstance(first, kind) and type(first).forward is kind.forward:
            return form(modules)
    if first._parameters:
        raise TypeError(f"{type(first).__name__} has weights and no stacked form")
    stacked = copy.copy(first)
    # A child that is None, such as a projection that a model does not need, stays so.
    stacked._modules = first._modules | {
        name: stack_modules([module.get_submodule(name) for module in modules], forms)
        for name, _ in first.named_children()
    }
    return stacked


def stack_parameters(parameters: Sequence[Tensor]) -> nn.Parameter:
    """Returns copies of equally large parameters on a new first axis."""
    return nn.Parameter(torch.stack([parameter.detach() for parameter in parameters]))


def by_model(rows: Tensor, num_models: int) -> Tensor:
    """Returns ``[G B, ..., I]`` as ``[G, N, I]``, N positions of each model."""
    return rows.reshape(num_models, -1, rows.shape[-1])


class StackedLinear(nn.Module):
    """Linear layers, each on the rows of its model.

    Args:
        layers: of one size, all with a bias.
    """

    def __init__(self, layers: Sequence[nn.Linear]) -> None:
        super().__init__()
        self.in_features, self.out_features = layers[0].in_features, layers[0].out_features
        self.weight = stack_parameters([layer.weight for layer in layers])
        self.bias = stack_parameters([layer.bias for layer in layers])

    def forward(self, rows: Tensor) -> Tensor:
        """Maps ``[G B, ..., I]`` to ``[G B, ..., O]``."""
        product = torch.baddbmm(
            self.bias[:, None], by_model(rows, len(self.weight)), self.weight.transpose(1, 2)
        )
        return product.view(*rows.shape[:-1], self.out_features)


class StackedNorm(nn.Module):
    """Layer norms over the last axis, each with the gains and biases of its model.

    Args:
        norms: of one width.
    """

    def __init__(self, norms: Sequence[nn.LayerNorm]) -> None:
        super().__init__()
        self.shape, self.eps = norms[0].normalized_shape, norms[0].eps
        self.weight = stack_parameters([norm.weight for norm in norms])
        self.bias = stack_parameters([norm.bias for norm in norms])

    def forward(self, rows: Tensor) -> Tensor:
        """Maps ``[G B, ..., I]`` to the same shape."""
        normed = by_model(F.layer_norm(rows, self.shape, eps=self.eps), len(self.weight))
        return torch.addcmul(self.bias[:, None], normed, self.weight[:, None]).view_as(rows)


class StackedTable(nn.Module):
    """Tables of embeddings, each for the rows of its model.

    Args:
        tables: of one size.
    """

    def __init__(self, tables: Sequence[nn.Embedding]) -> None:
        super().__init__()
        self.num_embeddings = tables[0].num_embeddings
        self.weight = stack_parameters([table.weight for table in tables])

    def forward(self, ids: Tensor) -> Tensor:
        """Maps ids ``[G B, ...]`` to ``[G B, ..., O]``."""
        num_models = len(self.weight)
        first = torch.arange(num_models, device=ids.device)[:, None] * self.num_embeddings
        own = ids.reshape(num_models, -1) + first
        return F.embedding(own.view_as(ids), self.weight.flatten(0, 1))


FORMS: dict[type[nn.Module], Form] = {
    nn.Linear: StackedLinear,
    nn.LayerNorm: StackedNorm,
    nn.Embedding: StackedTable,
}
