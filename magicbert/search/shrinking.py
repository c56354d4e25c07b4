"""Progressive shrinking by operators: PS-op of NAS-BERT (4.4.2), for spaces too large to list.

An operator of a layer is worth the mean loss of the scored architectures that hold it there.
NAS-BERT drops operators until 30% of a block's architectures are gone; in a space of 4^24 that
would be one or two of 96. Here a round drops a share of the *surplus*: the live (layer, operator)
pairs beyond the one that each layer must keep. A share of 0.3 leaves 0.7, 0.49, 0.34, 0.24 of the
surplus after four rounds, whatever the size of the space.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from magicbert.space import Architecture, SearchSpace

Pair = tuple[int, str]


def operator_losses(space: SearchSpace, losses: Mapping[Architecture, float]) -> dict[Pair, float]:
    """Returns the mean loss of the architectures that hold each live operator in its layer.

    An operator that none of them holds has no place within the limits: infinity.
    """
    held: dict[Pair, list[float]] = {
        (layer, name): [] for layer, names in enumerate(space.layers) for name in names
    }
    for architecture, loss in losses.items():
        for pair in enumerate(architecture):
            held[pair].append(loss)
    return {
        pair: math.fsum(values) / len(values) if values else math.inf
        for pair, values in held.items()
    }


def num_to_drop(space: SearchSpace, drop_fraction: float) -> int:
    """Returns how many pairs a round drops: the share of the surplus, rounded up."""
    surplus = sum(len(names) - 1 for names in space.layers)
    return math.ceil(drop_fraction * surplus)


def shrink(
    space: SearchSpace,
    losses: Mapping[Architecture, float],
    drop_fraction: float,
    is_feasible: Callable[[SearchSpace], bool],
) -> tuple[SearchSpace, tuple[Pair, ...]]:
    """Drops the worst operators; never empties a layer, never leaves the limits out of reach.

    Args:
        space: the space to shrink.
        losses: scored architectures of this space.
        drop_fraction: share of the surplus to drop.
        is_feasible: whether a space still holds an architecture within the limits.

    Returns:
        The smaller space and the pairs that were dropped, worst first.
    """
    worth = operator_losses(space, losses)
    dropped: list[Pair] = []
    wanted = num_to_drop(space, drop_fraction)
    for layer, name in sorted(worth, key=lambda pair: (-worth[pair], pair)):
        if len(dropped) == wanted:
            break
        if len(space.layers[layer]) == 1:
            continue
        smaller = space.without(layer, name)
        if is_feasible(smaller):
            space = smaller
            dropped.append((layer, name))
    return space, tuple(dropped)
