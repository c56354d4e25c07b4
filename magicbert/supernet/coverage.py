"""How often each operator, and each pair of operators in neighbouring layers, was trained.

A path is a pure function of (seed, step) and of the path before it, so the walk of a finished
training is walked again instead of being stored.
"""

from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import dataclass

from magicbert.space import Architecture, SearchSpace
from magicbert.supernet.sampling import PathSampler


@dataclass(frozen=True)
class Coverage:
    """Counts of trained steps.

    Attributes:
        space: all that could have been trained.
        num_steps: steps that were made.
        operators: steps by (layer, operator); layers count from 0.
        pairs: steps by (layer, operator, operator of the next layer).
    """

    space: SearchSpace
    num_steps: int
    operators: Counter[tuple[int, str]]
    pairs: Counter[tuple[int, str, str]]

    @property
    def num_untrained(self) -> tuple[int, int]:
        """Operators and neighbouring pairs that no step trained."""
        layers = self.space.layers
        num_operators = sum(map(len, layers))
        num_pairs = sum(len(a) * len(b) for a, b in itertools.pairwise(layers))
        return num_operators - len(self.operators), num_pairs - len(self.pairs)


def walk_again(sampler: PathSampler, space: SearchSpace, num_steps: int) -> Coverage:
    """Returns the coverage of the first ``num_steps`` steps of a training.

    Args:
        sampler: the training's own.
        space: the training's space.
        num_steps: steps that were made.
    """
    operators: Counter[tuple[int, str]] = Counter()
    pairs: Counter[tuple[int, str, str]] = Counter()
    path: Architecture | None = None
    for step in range(num_steps):
        path = sampler.next(step, path)
        names = path.operators
        operators.update(enumerate(names))
        pairs.update(zip(range(len(names) - 1), names, names[1:], strict=False))
    return Coverage(space, num_steps, operators, pairs)
