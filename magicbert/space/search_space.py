"""A chain-styled search space: the live candidate operators of each layer."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from magicbert.errors import UserError
from magicbert.space.architecture import Architecture


@dataclass(frozen=True, slots=True)
class SearchSpace:
    """The candidates of each layer; shrinking a space returns a new, smaller one.

    Attributes:
        layers: the live operator names of each layer, first layer first.
    """

    layers: tuple[tuple[str, ...], ...]

    def __post_init__(self) -> None:
        if not self.layers:
            raise UserError("a search space needs at least one layer")
        for index, names in enumerate(self.layers):
            if not names or len(set(names)) != len(names):
                raise UserError(f"layer {index}: needs distinct candidates, got {list(names)}")
            Architecture(names)  # checks the names

    @classmethod
    def uniform(cls, num_layers: int, candidates: tuple[str, ...]) -> SearchSpace:
        """Returns the space with the same candidates in every layer."""
        return cls((tuple(candidates),) * num_layers)

    @classmethod
    def of(cls, architecture: Architecture) -> SearchSpace:
        """Returns the space that holds one architecture alone."""
        return cls(tuple((name,) for name in architecture))

    @property
    def num_layers(self) -> int:
        """Number of layers, N."""
        return len(self.layers)

    def count(self) -> int:
        """Returns the number of architectures."""
        return math.prod(len(names) for names in self.layers)

    def __contains__(self, architecture: object) -> bool:
        return (
            isinstance(architecture, Architecture)
            and len(architecture) == self.num_layers
            and all(name in names for name, names in zip(architecture, self.layers, strict=True))
        )

    def check(self, architecture: Architecture) -> None:
        """Raises `UserError` that says which layer does not fit."""
        if len(architecture) != self.num_layers:
            raise UserError(
                f"architecture {architecture} has {len(architecture)} layers, "
                f"the space has {self.num_layers}"
            )
        for index, (name, names) in enumerate(zip(architecture, self.layers, strict=True)):
            if name not in names:
                raise UserError(
                    f"architecture {architecture}: layer {index} is {name!r}, "
                    f"the space offers {', '.join(names)}"
                )

    def sample(self, generator: np.random.Generator) -> Architecture:
        """Draws one architecture uniformly."""
        return Architecture(
            tuple(names[int(generator.integers(len(names)))] for names in self.layers)
        )

    def enumerate(self) -> Iterator[Architecture]:
        """Yields every architecture in lexicographic order of candidates."""
        return (Architecture(names) for names in itertools.product(*self.layers))

    def neighbours(self, architecture: Architecture, distance: int = 1) -> Iterator[Architecture]:
        """Yields every architecture that differs in exactly ``distance`` layers."""
        self.check(architecture)
        for layers in itertools.combinations(range(self.num_layers), distance):
            others = [[n for n in self.layers[i] if n != architecture[i]] for i in layers]
            for names in itertools.product(*others):
                operators = list(architecture.operators)
                for index, name in zip(layers, names, strict=True):
                    operators[index] = name
                yield Architecture(tuple(operators))

    def without(self, layer: int, operator: str) -> SearchSpace:
        """Returns the space with one operator of one layer masked out."""
        layers = list(self.layers)
        layers[layer] = tuple(name for name in layers[layer] if name != operator)
        return SearchSpace(tuple(layers))

    def to_json(self) -> list[list[str]]:
        """Returns plain data that `from_json` reads back."""
        return [list(names) for names in self.layers]

    @classmethod
    def from_json(cls, data: Any) -> SearchSpace:
        """Reads what `to_json` wrote; raises `UserError` on anything else."""
        if not isinstance(data, list) or not all(isinstance(names, list) for names in data):
            raise UserError(f"a search space is a list of lists of operator names, got {data!r}")
        return cls(tuple(tuple(str(name) for name in names) for names in data))
