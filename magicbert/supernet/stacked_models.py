"""Paths of several supernets as one: each layer's models run grouped by their operator."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, pairwise
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn

from magicbert.space import Architecture
from magicbert.supernet.stacked_modules import Form, stack_modules
from magicbert.supernet.supernet import Batch, Supernet, SupernetOutput


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

    A model is one path of a supernet. A tenant implements `collate`, `enter` and `read_losses`; its
    operators are stacked as they are. They must not drop anything: all models would draw from one
    generator.

    Attributes:
        forms: stacked forms of the tenant's modules that hold weights themselves.

    Args:
        supernets: one per model, of one class, one size and one number of layers. The weights of
            the paths are copied.
        architectures: the path of each; must fit its space.
    """

    forms: ClassVar[dict[type[nn.Module], Form]] = {}

    def __init__(
        self, supernets: Sequence[Supernet], architectures: Sequence[Architecture]
    ) -> None:
        super().__init__()
        self.select_rows = supernets[0].select_rows
        self.valid_positions = supernets[0].valid_positions
        self.architectures = architectures
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
        self.device = next(supernets[0].parameters()).device
        self.moves = [self.on_device(move) for move in moves_of(self.groups)]
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
        return self.read_losses(batch, self.run(batch).hidden)

    def run(self, batch: Any, block_ends: Collection[int] = ()) -> SupernetOutput:
        """Returns what the paths compute, each on its rows, the models in their own order.

        Args:
            batch: what `collate` returned, on the device.
            block_ends: numbers of layers (1..N) after which the output is kept.
        """
        hidden, context = self.enter(batch)
        num_rows = len(hidden) // self.num_models
        # Layers in which the same models run together share what was narrowed for them.
        contexts: dict[tuple[int, ...], Any] = {tuple(range(self.num_models)): context}
        kept = []
        steps = zip(self.groups, self.layers, self.moves, strict=False)
        for number, (groups, operators, move) in enumerate(steps, 1):
            sizes = [len(models) * num_rows for models in groups.values()]
            parts = torch.split(moved(hidden, move, num_rows), sizes)
            outputs = []
            for part, (name, models) in zip(parts, groups.items(), strict=True):
                if models not in contexts:
                    contexts[models] = self.select_rows(context, self.rows(models, num_rows))
                outputs.append(cast(nn.ModuleDict, operators)[name](part, contexts[models]))
            hidden = outputs[0] if len(outputs) == 1 else torch.cat(outputs)
            if number in block_ends:
                kept.append(moved(hidden, self.on_device(way_home(groups)), num_rows))
        hidden = moved(hidden, self.moves[-1], num_rows)
        return SupernetOutput(hidden, tuple(kept), self.valid_positions(context))

    def on_device(self, move: tuple[int, ...]) -> Tensor | None:
        """Returns a move as `moved` takes it."""
        return torch.tensor(move).to(self.device, non_blocking=True) if move else None

    def rows(self, models: tuple[int, ...], num_rows: int) -> Tensor:
        """Returns where the rows of some models stand among those of all; on the device, kept."""
        key = (models, num_rows)
        if key not in self._rows:
            first = torch.tensor(models)[:, None] * num_rows
            rows = (first + torch.arange(num_rows)).flatten()
            self._rows[key] = rows.to(self.device, non_blocking=True)
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
    orders = [order_of(own) for own in groups]
    home = sorted(orders[0])
    return [move_between(*orders) for orders in pairwise([home, *orders, home])]


def way_home(groups: Mapping[str, tuple[int, ...]]) -> tuple[int, ...]:
    """Returns from where models move behind a layer, so that they stand in their own order."""
    order = order_of(groups)
    return move_between(order, sorted(order))


def order_of(groups: Mapping[str, tuple[int, ...]]) -> list[int]:
    """Returns the models as a layer runs them, group by group."""
    return list(chain.from_iterable(groups.values()))


def move_between(before: Sequence[int], after: Sequence[int]) -> tuple[int, ...]:
    """Returns from where models move; empty where nothing does."""
    return () if before == after else tuple(before.index(model) for model in after)


def moved(hidden: Tensor, move: Tensor | None, num_rows: int) -> Tensor:
    """Returns the rows with the models in another order; ``None`` leaves them."""
    if move is None:
        return hidden
    models = hidden.view(-1, num_rows, *hidden.shape[1:])
    return models.index_select(0, move).view_as(hidden)
