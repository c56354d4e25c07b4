"""Paths of several supernets as one module: each layer's models run grouped by their operator.

Shapes: M models, G of them in a group, H that have a part, W weights of the part.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, pairwise
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn
from torch.func import functional_call

from magicbert.space import Architecture
from magicbert.supernet.stacked_modules import Form, stack_modules
from magicbert.supernet.stacked_parts import ChosenRows, StackedPart
from magicbert.supernet.supernet import Batch, Supernet, SupernetOutput

# Models of each operator of a layer.
Groups = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class StackedPaths:
    """One path of each model.

    Attributes:
        groups: of each layer, in the order in which the operators run.
        moves: from where models move ahead of each layer, and back home; ``None`` = none moves.
        chosen: the weights on the paths, what all share first.
    """

    groups: Sequence[Groups]
    moves: Sequence[Tensor | None]
    chosen: Sequence[ChosenRows]

    def parameters(self) -> dict[str, Tensor]:
        """Returns the weights by the names that they have in the stacked module."""
        named = (one.part.named(one.rows) for one in self.chosen)
        return {name: values for own in named for name, values in own.items()}


class StackedModels(nn.Module, ABC):
    """Base of a tenant's stacked models: a path of each supernet, computed together.

    A tenant implements `collate`, `enter` and `read_losses`; its operators are stacked as they are.
    They must not drop anything: all models would draw from one generator.

    Attributes:
        forms: stacked forms of the tenant's modules that hold weights themselves.
        parts: the weights: what all models share, then each candidate of each layer.

    Args:
        supernets: of one class, one size and one number of layers. Their weights are copied.
    """

    forms: ClassVar[dict[type[nn.Module], Form]] = {}

    def __init__(self, supernets: Sequence[Supernet]) -> None:
        super().__init__()
        self.select_rows = supernets[0].select_rows
        self.valid_positions = supernets[0].valid_positions
        self.device = next(supernets[0].parameters()).device
        self.num_models = len(supernets)
        self.holders = [
            group_models(names) for names in zip(*(s.space.layers for s in supernets), strict=True)
        ]
        self.layers = nn.ModuleList(
            nn.ModuleDict(
                {
                    name: self.stack([supernets[model].operator(layer, name) for model in models])
                    for name, models in holders.items()
                }
            )
            for layer, holders in enumerate(self.holders)
        )
        self.add_shared(supernets)
        self.parts = dict(self.gathered_parts())
        # From here on the module is structure alone: a call brings the weights along.
        for parameter in self.parameters():
            parameter.data = parameter.data.new_empty(0)

    def stack(self, modules: Sequence[nn.Module]) -> nn.Module:
        """Returns equally built modules as one."""
        return stack_modules(modules, self.forms)

    @abstractmethod
    def add_shared(self, supernets: Sequence[Any]) -> None:
        """Adds stacked forms of what every path runs, under the names that it has in a model."""

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
        """Returns each model's sum of losses over the terms of its rows, ``[M]``."""

    def gathered_parts(self) -> Iterator[tuple[str, StackedPart]]:
        """Yields the stacked weights, part by part, with the prefix of each; no empty part."""
        shared = {n: v for n, v in self.named_parameters() if not n.startswith("layers.")}
        yield "", StackedPart.of("", shared, tuple(range(self.num_models)))
        for layer, holders in enumerate(self.holders):
            for name, models in holders.items():
                prefix = f"layers.{layer}.{name}."
                own = dict(cast(nn.ModuleDict, self.layers[layer])[name].named_parameters())
                if own:
                    yield prefix, StackedPart.of(prefix, own, models)

    def choose(self, architectures: Sequence[Architecture]) -> StackedPaths:
        """Returns a path of each model with its weights, which `run` computes.

        Args:
            architectures: one per model; must fit its space.
        """
        layers = zip(*architectures, strict=True)
        groups = [group_models([(name,) for name in names]) for names in layers]
        wanted = [("", tuple(range(self.num_models)))]
        wanted += [
            (f"layers.{layer}.{name}.", models)
            for layer, own in enumerate(groups)
            for name, models in own.items()
        ]
        chosen = [self.parts[part].choose(own) for part, own in wanted if part in self.parts]
        return StackedPaths(groups, [self.on_device(move) for move in moves_of(groups)], chosen)

    def run(
        self, batch: Any, paths: StackedPaths, block_ends: Collection[int] = ()
    ) -> tuple[Tensor, SupernetOutput]:
        """Runs the paths, each on the rows of its model, and reads their losses.

        Args:
            batch: what `collate` returned, on the device.
            paths: what `choose` returned; their rows get the gradients.
            block_ends: numbers of layers (1..N) after which the output is kept.

        Returns:
            Each model's sum of losses over the terms of its rows, ``[M]``, and what the paths
            compute, the models in their own order.
        """
        return cast(tuple[Tensor, SupernetOutput], self.call(batch, paths, block_ends, True))

    def run_blocks(
        self, batch: Any, paths: StackedPaths, block_ends: Collection[int]
    ) -> SupernetOutput:
        """Runs the paths and reads no losses."""
        return self.call(batch, paths, block_ends, False)[1]

    def call(
        self, batch: Any, paths: StackedPaths, block_ends: Collection[int], reads_losses: bool
    ) -> tuple[Tensor | None, SupernetOutput]:
        """Calls the module with the paths' weights in their places."""
        arguments = (batch, paths, block_ends, reads_losses)
        found = functional_call(self, paths.parameters(), arguments, tie_weights=False)
        return cast(tuple[Tensor | None, SupernetOutput], found)

    def forward(
        self, batch: Any, paths: StackedPaths, block_ends: Collection[int], reads_losses: bool
    ) -> tuple[Tensor | None, SupernetOutput]:
        """What `run` and `run_blocks` do, once the weights are in their places."""
        hidden, context = self.enter(batch)
        num_rows = len(hidden) // self.num_models
        # Layers in which the same models run together share what was narrowed for them.
        contexts: dict[tuple[int, ...], Any] = {tuple(range(self.num_models)): context}
        kept = []
        steps = zip(paths.groups, self.layers, paths.moves, strict=False)
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
        hidden = moved(hidden, paths.moves[-1], num_rows)
        output = SupernetOutput(hidden, tuple(kept), self.valid_positions(context))
        return self.read_losses(batch, hidden) if reads_losses else None, output

    def rows(self, models: tuple[int, ...], num_rows: int) -> Tensor:
        """Returns where the rows of some models stand among those of all; on the device."""
        first = torch.tensor(models)[:, None] * num_rows
        return (first + torch.arange(num_rows)).flatten().to(self.device, non_blocking=True)

    def on_device(self, move: tuple[int, ...]) -> Tensor | None:
        """Returns a move as `moved` takes it."""
        return torch.tensor(move).to(self.device, non_blocking=True) if move else None


def group_models(names: Sequence[Collection[str]]) -> dict[str, tuple[int, ...]]:
    """Returns which models have each operator of a layer, in the order of their first.

    Args:
        names: operators of each model.
    """
    groups: dict[str, tuple[int, ...]] = {}
    for model, own in enumerate(names):
        for name in own:
            groups[name] = (*groups.get(name, ()), model)
    return groups


def moves_of(groups: Sequence[Groups]) -> list[tuple[int, ...]]:
    """Returns from where models move ahead of each layer, so that groups lie together, and back.

    Args:
        groups: of each layer.

    Returns:
        One move more than there are layers; an empty one where nothing moves.
    """
    orders = [order_of(own) for own in groups]
    home = sorted(orders[0])
    return [move_between(*both) for both in pairwise([home, *orders, home])]


def way_home(groups: Groups) -> tuple[int, ...]:
    """Returns from where models move behind a layer, so that they stand in their own order."""
    order = order_of(groups)
    return move_between(order, sorted(order))


def order_of(groups: Groups) -> list[int]:
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
