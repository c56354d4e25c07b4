"""Independent walkers of the real sampler, to be held against the exact law of `mixing`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from magicbert.space import Architecture, SearchSpace
from magicbert.supernet.mixing import HammingWalk
from magicbert.supernet.sampling import MagicTSampler


def walked_distances(
    space: SearchSpace, num_changes: int, steps: Sequence[int], num_walkers: int, seed: int
) -> NDArray[np.int64]:
    """Returns ``[walkers, steps]``: in how many layers each walker differs from its start.

    Args:
        space: where they walk.
        num_changes: MAGIC-T's k.
        steps: ascending numbers of steps at which the distance is taken.
        num_walkers: walkers, each with a seed of its own: steps of one walk are dependent.
        seed: of the first walker.
    """
    start = Architecture(tuple(names[0] for names in space.layers))
    distances = np.zeros((num_walkers, len(steps)), dtype=np.int64)
    for number in range(num_walkers):
        sampler, path = MagicTSampler(space, seed + number, num_changes), start
        wanted = iter(enumerate(steps))
        column, step = next(wanted)
        for made in range(1, steps[-1] + 1):
            path = sampler.next(made, path)
            if made == step:
                distances[number, column] = sum(map(str.__ne__, path, start))
                column, step = next(wanted, (0, 0))
    return distances


def mean_distances(walk: HammingWalk, num_steps: int) -> NDArray[np.float64]:
    """Returns the exact mean number of layers that differ from the start, after 0..num_steps."""
    axes = np.indices(tuple(part.num_layers + 1 for part in walk.classes)).sum(axis=0)
    return np.asarray(walk.laws(num_steps) @ axes.reshape(-1))
