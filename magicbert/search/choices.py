"""What a search may choose from: a space under limits, or a list of architectures."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import numpy as np

from magicbert.space import Architecture, Cost, SearchSpace


class Choices(Protocol):
    """The architectures that a strategy may propose; all of them keep the limits.

    `magicbert.space.feasible.FeasiblePaths` is one over a whole space, `magicbert.space.listed.
    ListedPaths` one over a list, such as the rows of a table.
    """

    @property
    def space(self) -> SearchSpace:
        """The candidates of each layer."""
        ...

    @property
    def is_exact(self) -> bool:
        """Whether `count` and the chances of `draw` are exact."""
        ...

    def __contains__(self, architecture: object) -> bool:
        """Whether an architecture may be chosen."""
        ...

    def cost(self, architecture: Architecture) -> Cost:
        """Returns what an architecture costs."""
        ...

    def count(self) -> int:
        """Returns how many architectures there are."""
        ...

    def enumerate(self) -> Iterator[Architecture]:
        """Yields all of them."""
        ...

    def draw(self, number: int, generator: np.random.Generator) -> list[Architecture]:
        """Returns ``number`` distinct ones, drawn uniformly; all if there are fewer."""
        ...

    def within(self, space: SearchSpace) -> Choices:
        """Returns those that lie in a smaller space."""
        ...

    def check(self) -> None:
        """Raises `UserError` with the nearest architecture if there is none."""
        ...
