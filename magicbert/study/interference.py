"""How much the paths of a finished supernet disturb each other, on the same pairs for every method.

A probe while training compares consecutive paths, which differ between samplers by design. Here
all supernets of a study are asked the same: pairs drawn uniformly, and pairs that differ in one
layer.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from magicbert.space import Architecture, SearchSpace
from magicbert.space.randomness import keyed_generator
from magicbert.supernet.supernet import Supernet
from magicbert.training.parts import Probe

NUM_PAIRS = 16
PAIR_SEED = 0
Pair = tuple[Architecture, Architecture]


def final_interference(supernet: Supernet, probe: Probe, batches: Sequence[Any]) -> dict[str, Any]:
    """Returns mean gradient cosines over what the paths of a pair share.

    Args:
        supernet: trained; nothing of it is changed.
        probe: compares two paths on a batch.
        batches: dev batches, at least one; pairs take them in turn.

    Returns:
        ``cosine`` of uniform pairs, ``one_layer`` of pairs that differ in one layer (``None``
        where no pair gave a cosine), and ``num_pairs`` of each kind.
    """
    device = next(supernet.parameters()).device

    def mean_cosine(pairs: Iterator[Pair]) -> float | None:
        found = [
            probe(supernet, batches[number % len(batches)].to(device), *pair)["cosine"]
            for number, pair in enumerate(pairs)
        ]
        known = [value for value in found if value is not None]
        return float(np.mean(known)) if known else None

    return {
        "cosine": mean_cosine(uniform_pairs(supernet.space)),
        "one_layer": mean_cosine(one_layer_pairs(supernet.space)),
        "num_pairs": NUM_PAIRS,
    }


def uniform_pairs(space: SearchSpace) -> Iterator[Pair]:
    """Yields pairs of independent paths, the same for every supernet over the space."""
    for number in range(NUM_PAIRS):
        generator = keyed_generator(PAIR_SEED, "pair", number)
        yield space.sample(generator), space.sample(generator)


def one_layer_pairs(space: SearchSpace) -> Iterator[Pair]:
    """Yields pairs that differ in one layer, drawn among those with a choice."""
    open_layers = [layer for layer, names in enumerate(space.layers) if len(names) > 1]
    for number in range(NUM_PAIRS if open_layers else 0):
        generator = keyed_generator(PAIR_SEED, "one-layer-pair", number)
        path, layer = space.sample(generator), int(generator.choice(open_layers))
        others = [name for name in space.layers[layer] if name != path[layer]]
        yield path, path.replace(layer, others[int(generator.integers(len(others)))])
