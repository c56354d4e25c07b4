"""Models of several architectures as one: each layer's models run grouped by their operator."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, pairwise
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn

from magicbert.space import Architecture
from magicbert.supernet.stacked_modules import Form, stack_modules
from magicbert.supernet.supernet import Batch, Supernet


@dataclass(frozen=True)
class StackedParameter:
    """One parameter of several models.

    Attributes:
        name: of the parameter in each of them.
        values: theirs, ``[len(models), ...]``.
        models: numbers of the models that have it, ascending.
    """

    name: str
    values: nn.Parameter
    models: tuple[int, ...]


class StackedModels(nn.Module, ABC):
    """Base of a tenant's stacked models.

    A tenant implements `collate`, `enter` and `read_losses`; its operators are stacked as they are.
    They must not drop anything: all models would draw from one generator.

    Attributes:
        forms: stacked forms of the tenant's modules that hold weights themselves.

    Args:
        supernets: the models, each a supernet over one architecture; of one class, one size and
            one number of layers. Their weights are copied.
    """

    forms: ClassVar[dict[type[nn.Module], Form]] = {}

    def __init__(self, supernets: Sequence[Supernet]) -> None:
        super().__init__()
        self.select_rows = supernets[0].select_rows
        self.architectures = [only_path(supernet) for supernet in supernets]
        self.num_models = len(supernets)
        self.groups = [group_models(names) for names in zip(*self.architectures, strict=True)]
        self.layers = nn.ModuleList(
            nn.ModuleDict(
                {
                    name: self.stack([supernets[model].operator(layer, name) for model in models])
                    for name, models in groups.items()
                }
            )
            for layer, groups in enumerate(self.groups)
        )
        device = next(supernets[0].parameters()).device
        self.moves = [
            torch.tensor(move, device=device) if move else None for move in moves_of(self.groups)
        ]
        self._rows: dict[tuple[tuple[int, ...], int], Tensor] = {}

    def stack(self, modules: Sequence[nn.Module]) -> nn.Module:
        """Returns equally built modules as one."""
        return stack_modules(modules, self.forms)

    @abstractmethod
    def collate(self, batches: Sequence[Any]) -> Batch:
        """Returns one batch of all models' rows, model by model; on the host.

        Args:
            batches: one per model, of equally many rows each.
        """

    @abstractmethod
    def enter(self, batch: Any) -> tuple[Tensor, Any]:
        """Returns the first hidden state and the operators' context, of a collated batch."""

    @abstractmethod
    def read_losses(self, batch: Any, hidden: Tensor) -> Tensor:
        """Returns each model's sum of losses over the terms of its rows, ``[models]``."""

    def forward(self, batch: Any) -> Tensor:
        """Returns each model's sum of losses over the terms of its rows, ``[models]``.

        Args:
            batch: what `collate` returned, on the device.
        """
        hidden, context = self.enter(batch)
        num_rows = len(hidden) // self.num_models
        # Layers in which the same models run together share what was narrowed for them.
        contexts: dict[tuple[int, ...], Any] = {tuple(range(self.num_models)): context}
        for groups, operators, move in zip(self.groups, self.layers, self.moves, strict=False):
            sizes = [len(models) * num_rows for models in groups.values()]
            parts = torch.split(moved(hidden, move, num_rows), sizes)
            outputs = []
            for part, (name, models) in zip(parts, groups.items(), strict=True):
                if models not in contexts:
                    contexts[models] = self.select_rows(context, self.rows(models, num_rows))
                outputs.append(cast(nn.ModuleDict, operators)[name](part, contexts[models]))
            hidden = outputs[0] if len(outputs) == 1 else torch.cat(outputs)
        return self.read_losses(batch, moved(hidden, self.moves[-1], num_rows))

    def rows(self, models: tuple[int, ...], num_rows: int) -> Tensor:
        """Returns where the rows of some models stand among those of all; on the device, kept."""
        key = (models, num_rows)
        if key not in self._rows:
            first = torch.tensor(models)[:, None] * num_rows
            rows = (first + torch.arange(num_rows)).flatten()
            self._rows[key] = rows.to(next(self.parameters()).device)
        return self._rows[key]

    def stacked_parameters(self) -> Iterator[StackedParameter]:
        """Yields every parameter with the models that have it."""
        everyone = tuple(range(self.num_models))
        for name, values in self.named_parameters():
            models = everyone
            if name.startswith("layers."):
                _, layer, operator, _ = name.split(".", 3)
                models = self.groups[int(layer)][operator]
            yield StackedParameter(name, values, models)


def only_path(supernet: Supernet) -> Architecture:
    """Returns the architecture of a supernet over one."""
    assert all(len(names) == 1 for names in supernet.space.layers), "one architecture each"
    return Architecture(tuple(name for (name,) in supernet.space.layers))


def group_models(names: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """Returns which models run each operator of a layer, in the order of their first.

    Args:
        names: operator of each model.
    """
    groups: dict[str, tuple[int, ...]] = {}
    for model, name in enumerate(names):
        groups[name] = (*groups.get(name, ()), model)
    return groups


def moves_of(groups: Sequence[Mapping[str, tuple[int, ...]]]) -> list[tuple[int, ...]]:
    """Returns from where models move ahead of each layer, so that groups lie together, and back.

    Args:
        groups: of each layer.

    Returns:
        One move more than there are layers; an empty one where nothing moves.
    """
    orders = [tuple(chain.from_iterable(own.values())) for own in groups]
    home = tuple(sorted(orders[0]))
    return [
        () if before == after else tuple(before.index(model) for model in after)
        for before, after in pairwise([home, *orders, home])
    ]


def moved(hidden: Tensor, move: Tensor | None, num_rows: int) -> Tensor:
    """Returns the rows with the models in another order; ``None`` leaves them."""
    if move is None:
        return hidden
    models = hidden.view(-1, num_rows, *hidden.shape[1:])
    return models.index_select(0, move).view_as(hidden)
