"""What a supernet is: every layer holds all its candidate operators, a forward runs one path."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn

from magicbert.errors import UserError
from magicbert.space import Architecture, SearchSpace
from magicbert.supernet.row_groups import LayerRows, RowGroup, group_rows


class Batch(Protocol):
    """What the core asks of a batch; what is inside is the tenant's business."""

    def to(self, device: torch.device) -> Batch:
        """Returns the batch on a device."""
        ...


@dataclass(frozen=True)
class SupernetOutput:
    """What one path computes.

    Attributes:
        hidden: output of the last layer, ``[rows, length, hidden]`` (any shape in a tenant).
        block_outputs: outputs of the layers asked for, in order; same shape as ``hidden``.
        valid: bool mask of the positions that count, ``[rows, length]``; ``None`` = all.
    """

    hidden: Tensor
    block_outputs: tuple[Tensor, ...]
    valid: Tensor | None


class Supernet(nn.Module):
    """Base of every tenant's supernet.

    A tenant implements `enter` (batch -> first hidden state and the operators' context) and gives
    the operators; every operator is ``(hidden, context) -> hidden`` and owns its residual and norm.
    There is no active sub-network: the path is an argument.

    Args:
        space: candidates per layer.
        build_operator: ``(layer, name) -> module``; called in order, so a seed fixes the weights.
    """

    def __init__(self, space: SearchSpace, build_operator: Callable[[int, str], nn.Module]) -> None:
        super().__init__()
        self.space = space
        self.layers = nn.ModuleList(
            nn.ModuleDict({name: build_operator(index, name) for name in names})
            for index, names in enumerate(space.layers)
        )

    def enter(self, batch: Any) -> tuple[Tensor, Any]:
        """Returns the first hidden state and the context that every operator receives."""
        raise NotImplementedError

    def valid_positions(self, context: Any) -> Tensor | None:
        """Returns the mask of positions that count in alignment; ``None`` = all."""
        return None

    def select_rows(self, context: Any, rows: Tensor) -> Any:
        """Returns the operators' context of some rows of the batch, for `forward_rows`.

        A tenant whose operators receive a context says here how it is narrowed.

        Args:
            context: what `enter` returned.
            rows: ``[n]`` int64, numbers of the rows.
        """
        if context is None:
            return None
        raise NotImplementedError(
            f"{type(self).__name__} has a context: forward_rows needs its select_rows"
        )

    def operator(self, layer: int, name: str) -> nn.Module:
        """Returns one candidate operator."""
        return cast(nn.ModuleDict, self.layers[layer])[name]

    def forward(
        self, batch: Any, architecture: Architecture, block_ends: Sequence[int] = ()
    ) -> SupernetOutput:
        """Runs one path.

        Args:
            batch: the tenant's batch.
            architecture: the path; must fit the space.
            block_ends: numbers of layers (1..N) after which the output is kept.
        """
        hidden, context = self.enter(batch)
        kept = []
        for index, name in enumerate(architecture):
            hidden = self.operator(index, name)(hidden, context)
            if index + 1 in block_ends:
                kept.append(hidden)
        return SupernetOutput(hidden, tuple(kept), self.valid_positions(context))

    def forward_rows(
        self, batch: Any, architectures: Sequence[Architecture], block_ends: Sequence[int] = ()
    ) -> SupernetOutput:
        """Runs every row of a batch along a path of its own.

        A row gets what `forward` gives it on that path, up to rounding: the matrix products have
        other sizes. Rows are the first axis of the hidden state.

        Args:
            batch: the tenant's batch.
            architectures: one path per row; each must fit the space.
            block_ends: numbers of layers (1..N) after which the output is kept.

        Raises:
            UserError: a path does not fit the space, or there is not one path per row.
        """
        for architecture in dict.fromkeys(architectures):
            self.space.check(architecture)
        hidden, context = self.enter(batch)
        if len(architectures) != len(hidden):
            raise UserError(f"{len(architectures)} architectures for {len(hidden)} rows")
        if not architectures:
            return SupernetOutput(
                hidden, (hidden,) * len(block_ends), self.valid_positions(context)
            )
        kept = []
        for index, rows in enumerate(group_rows(architectures, hidden.device, self.family)):
            hidden = self.run_rows(index, rows, hidden, context)
            if index + 1 in block_ends:
                kept.append(hidden)
        return SupernetOutput(hidden, tuple(kept), self.valid_positions(context))

    def run_rows(self, layer: int, rows: LayerRows, hidden: Tensor, context: Any) -> Tensor:
        """Runs one layer of `forward_rows`.

        Args:
            layer: its number, from 0.
            rows: which operator each row takes.
            hidden: ``[rows, ...]``.
            context: of the whole batch.
        """
        name = rows.only_operator
        if name is not None:
            return cast(Tensor, self.operator(layer, name)(hidden, context))
        parts = [
            self.run_family(layer, group, hidden.index_select(0, group.rows), context)
            for group in rows.groups
        ]
        return rows.restore(parts)

    def family(self, layer: int, name: str) -> str:
        """Returns which candidates of a layer `run_family` takes together: here each alone."""
        return name

    def run_family(self, layer: int, group: RowGroup, hidden: Tensor, context: Any) -> Tensor:
        """Runs the operators of one family, each on its rows.

        A tenant that overrides `family` says here how several operators run at once.

        Args:
            layer: number of the layer, from 0.
            group: the operators, and which of the rows each takes.
            hidden: ``[len(group.rows), ...]``, these rows alone.
            context: of the whole batch; `select_rows` narrows it.
        """
        (name,) = group.names
        narrowed = self.select_rows(context, group.rows)
        return cast(Tensor, self.operator(layer, name)(hidden, narrowed))

    def path_modules(self, *architectures: Architecture) -> Iterator[nn.Module]:
        """Yields every module that some paths run: the supernet, what is shared, operators."""
        yield self
        for name, child in self.named_children():
            if name != "layers":
                yield from child.modules()
        pairs = {pair: None for path in architectures for pair in enumerate(path)}
        for index, name in pairs:
            yield from self.operator(index, name).modules()

    def operator_parameters(self, layer: int, name: str) -> Iterator[tuple[str, nn.Parameter]]:
        """Yields the named parameters that only this candidate owns."""
        prefix = f"layers.{layer}.{name}."
        for inner, parameter in self.operator(layer, name).named_parameters():
            yield prefix + inner, parameter

    def shared_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Yields the named parameters that every path trains (embeddings, heads)."""
        for name, parameter in self.named_parameters():
            if not name.startswith("layers."):
                yield name, parameter

    def path_state(self, architecture: Architecture) -> dict[str, Tensor]:
        """Returns the weights of one path, named as in a supernet over that path alone."""
        self.space.check(architecture)
        kept = {f"layers.{index}.{name}." for index, name in enumerate(architecture)}
        return {
            name: value
            for name, value in self.state_dict().items()
            if not name.startswith("layers.") or ".".join(name.split(".")[:3]) + "." in kept
        }


def block_ends(num_layers: int, num_blocks: int) -> tuple[int, ...]:
    """Returns after which layers (1..N) block outputs are taken; 0 blocks = every layer."""
    if num_blocks == 0:
        return tuple(range(1, num_layers + 1))
    return tuple(round(num_layers * (i + 1) / num_blocks) for i in range(num_blocks))
