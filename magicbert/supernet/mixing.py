"""How fast MAGIC-T's walk forgets where it started: exact laws and bounds.

Paths are the vertices of a Hamming graph: N layers, C candidates each (MAGIC 4.1). By symmetry all
paths at one distance from the start are equally likely, so the law of a path is known from the law
of its distance, a chain of N + 1 states (lumping). Where layers hold different numbers of
candidates, the state is the distance within each class of equally large layers.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binom, hypergeom

from magicbert.errors import UserError
from magicbert.space import SearchSpace

Law = NDArray[np.float64]
MAX_STATES = 4096


@dataclass(frozen=True, slots=True)
class LayerClass:
    """Layers with the same number of candidates.

    Attributes:
        num_layers: how many there are.
        num_candidates: candidates of each, at least 2.
    """

    num_layers: int
    num_candidates: int


class HammingWalk:
    """The walk of `magicbert.supernet.sampling.MagicTSampler`, lumped by distance from its start.

    Args:
        classes: layers that have a choice, by their number of candidates.
        num_changes: k, layers drawn at each step, without replacement.
        is_lazy: a drawn layer may draw its own operator again.

    Raises:
        UserError: k is not in 1..N, or there are too many states to lump.
    """

    def __init__(
        self, classes: tuple[LayerClass, ...], num_changes: int = 1, *, is_lazy: bool = False
    ) -> None:
        self.classes = classes
        self.num_changes = num_changes
        self.is_lazy = is_lazy
        self.num_layers = sum(part.num_layers for part in classes)
        if not 1 <= num_changes <= self.num_layers:
            raise UserError(
                f"sampling.num_changes: must be in 1..{self.num_layers}, the number of layers "
                f"with more than one operator, got {num_changes}"
            )
        num_states = math.prod(part.num_layers + 1 for part in classes)
        if num_states > MAX_STATES:
            raise UserError(
                f"the space has {len(classes)} kinds of layers, which makes {num_states:,} "
                f"distances to follow, above {MAX_STATES:,}: analyze a smaller space"
            )

    @classmethod
    def of(cls, space: SearchSpace, num_changes: int = 1) -> HammingWalk:
        """Returns the walk of a space as the sampler makes it: lazy if a layer has 2 operators."""
        sizes = Counter(len(names) for names in space.layers if len(names) > 1)
        classes = tuple(LayerClass(count, size) for size, count in sorted(sizes.items()))
        return cls(classes, num_changes, is_lazy=2 in sizes)

    @property
    def is_periodic(self) -> bool:
        """Whether the walk alternates between two halves of the space for ever."""
        return not self.is_lazy and all(part.num_candidates == 2 for part in self.classes)

    def stationary(self) -> Law:
        """Returns the law of the distance of a uniform path; axes are classes, 0..n each."""
        laws = [
            binom.pmf(np.arange(p.num_layers + 1), p.num_layers, 1 - 1 / p.num_candidates)
            for p in self.classes
        ]
        return product_of(laws)

    def transition(self) -> NDArray[np.float64]:
        """Returns the matrix of one step of the lumped chain, ``[from, to]``, classes flattened."""
        total: NDArray[np.float64] = np.zeros((1, 1))
        for drawn in itertools.product(*(range(p.num_layers + 1) for p in self.classes)):
            if sum(drawn) != self.num_changes:
                continue
            chance = math.prod(
                math.comb(p.num_layers, n) for p, n in zip(self.classes, drawn, strict=True)
            ) / math.comb(self.num_layers, self.num_changes)
            kernel: NDArray[np.float64] = np.ones((1, 1))
            for part, num_drawn in zip(self.classes, drawn, strict=True):
                one = class_transition(part, num_drawn, self.is_lazy)
                kernel = np.asarray(np.kron(kernel, one), dtype=np.float64)
            total = total + chance * kernel
        return total

    def laws(self, num_steps: int) -> NDArray[np.float64]:
        """Returns the laws of the distance after 0..num_steps steps, ``[num_steps + 1, states]``.

        The walk starts at one path: distance 0.
        """
        matrix = self.transition()
        laws = np.zeros((num_steps + 1, len(matrix)))
        laws[0, 0] = 1.0
        for step in range(num_steps):
            laws[step + 1] = laws[step] @ matrix
        return laws

    def total_variation(self, num_steps: int) -> Law:
        """Returns the exact total-variation distance to uniform after 0..num_steps steps."""
        gaps = np.abs(self.laws(num_steps) - self.stationary().reshape(-1))
        return np.asarray(gaps.sum(axis=1) / 2)

    def mixing_time(self, distance: float, max_steps: int = 1_000_000) -> int | None:
        """Returns the first step within ``distance`` of uniform; ``None`` = not in max_steps.

        Total variation never grows, so the first time is found by doubling.
        """
        if self.is_periodic and distance < 0.5:
            return None
        num_steps = 64
        while num_steps <= max_steps:
            reached = np.flatnonzero(self.total_variation(num_steps) <= distance)
            if len(reached):
                return int(reached[0])
            num_steps *= 2
        return None


def class_transition(part: LayerClass, num_drawn: int, is_lazy: bool) -> NDArray[np.float64]:
    """Returns one step's matrix of the distance within a class of which ``num_drawn`` are drawn."""
    size = part.num_layers + 1
    back = 1 / part.num_candidates if is_lazy else 1 / (part.num_candidates - 1)
    away = 1 - 1 / part.num_candidates if is_lazy else 1.0
    matrix = np.zeros((size, size))
    for distance in range(size):
        # How many of the drawn layers differ from the start already.
        for differing in range(min(distance, num_drawn) + 1):
            chance = hypergeom.pmf(differing, part.num_layers, distance, num_drawn)
            if chance == 0:
                continue
            returned = binom.pmf(np.arange(differing + 1), differing, back)
            left = binom.pmf(np.arange(num_drawn - differing + 1), num_drawn - differing, away)
            # Distribution of (left - returned), shifted so that index 0 is -differing.
            moved = np.convolve(left, returned[::-1])
            start = distance - differing
            inside = min(len(moved), size - start)
            matrix[distance, start : start + inside] += chance * moved[:inside]
    return matrix


def product_of(laws: list[Law]) -> Law:
    """Returns the joint law of independent parts, one axis per part."""
    joint = np.ones(())
    for law in laws:
        joint = np.multiply.outer(joint, law)
    return np.asarray(joint)
