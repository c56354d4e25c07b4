"""Which paths are compared: children that share an operator and differ in chosen layers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from magicbert.errors import UserError
from magicbert.space import Architecture, SearchSpace


def differing_in_one_layer(
    space: SearchSpace, context: Architecture, layer: int
) -> tuple[Architecture, ...]:
    """Returns one child per candidate of a layer, in the order of the candidates (Figure 2a).

    Args:
        space: of the supernet.
        context: gives all other layers.
        layer: the layer in which the children differ, from 0.
    """
    return tuple(with_operators(context, {layer: name}) for name in space.layers[layer])


def differing_in_layers(
    space: SearchSpace,
    context: Architecture,
    layers: Sequence[int],
    generator: np.random.Generator,
) -> tuple[Architecture, ...]:
    """Returns children of which every two differ in every one of the layers (Figure 2c).

    Child c takes candidate ``(c + offset_l) mod C_l`` of layer l, with random offsets. There are
    as many children as the smallest of these layers has candidates.

    Args:
        space: of the supernet.
        context: gives all other layers.
        layers: the layers in which the children differ, from 0.
        generator: draws the offsets.

    Raises:
        UserError: one of the layers has a single candidate.
    """
    sizes = {layer: len(space.layers[layer]) for layer in layers}
    closed = [layer + 1 for layer, size in sizes.items() if size == 1]
    if closed:
        raise UserError(
            f"layers {', '.join(map(str, closed))} have one candidate: paths cannot differ there"
        )
    offsets = {layer: int(generator.integers(size)) for layer, size in sizes.items()}
    return tuple(
        with_operators(
            context,
            {layer: space.layers[layer][(child + offsets[layer]) % sizes[layer]]
             for layer in layers},
        )
        for child in range(min(sizes.values()))
    )  # fmt: skip


def with_operators(path: Architecture, operators: dict[int, str]) -> Architecture:
    """Returns the path with the operators of some layers replaced."""
    return Architecture(tuple(operators.get(i, name) for i, name in enumerate(path)))


def layers_around(num_layers: int, shared: int) -> tuple[int, ...]:
    """Returns all other layers: those behind the shared one first, then those in front of it.

    The first m of them are where children differ: layers 2..m+1 for the paper's shared layer 1.
    """
    return (*range(shared + 1, num_layers), *range(shared - 1, -1, -1))
