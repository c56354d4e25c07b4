"""A list of architectures under limits, where a whole space is not to be had: a table's rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from magicbert.errors import UserError
from magicbert.space.architecture import Architecture
from magicbert.space.cost import Cost, Limits
from magicbert.space.search_space import SearchSpace


class ListedPaths:
    """The listed architectures that keep ``limits``.

    Args:
        costs: every architecture with its cost; all of one length.
        limits: what must hold.
        space: only those in it; ``None`` = all.

    Raises:
        UserError: the list is empty, or its architectures differ in length.
    """

    is_exact = True

    def __init__(
        self,
        costs: Mapping[Architecture, Cost],
        limits: Limits,
        space: SearchSpace | None = None,
    ) -> None:
        self.costs = costs
        self.limits = limits
        self.space = space or space_of(costs)
        self._members = sorted(
            path for path, cost in costs.items() if limits.admits(cost) and path in self.space
        )
        self._known = frozenset(self._members)

    def __contains__(self, architecture: object) -> bool:
        return architecture in self._known

    def cost(self, architecture: Architecture) -> Cost:
        """Returns what a listed architecture costs."""
        return self.costs[architecture]

    def count(self) -> int:
        """Returns how many listed architectures keep the limits."""
        return len(self._members)

    def enumerate(self) -> Iterator[Architecture]:
        """Yields every listed architecture that keeps the limits."""
        return iter(self._members)

    def draw(self, number: int, generator: np.random.Generator) -> list[Architecture]:
        """Returns ``number`` distinct ones, drawn uniformly; all if there are fewer."""
        if len(self._members) <= number:
            return list(self._members)
        chosen = generator.choice(len(self._members), number, replace=False)
        return [self._members[index] for index in chosen]

    def within(self, space: SearchSpace) -> ListedPaths:
        """Returns those that lie in a smaller space."""
        return ListedPaths(self.costs, self.limits, space)

    def check(self) -> None:
        """Raises `UserError` with the nearest architecture if none keeps the limits."""
        if self._members:
            return
        nearest = min(self.costs, key=lambda path: (self.limits.excess(self.costs[path]), path))
        raise UserError(
            f"none of the {len(self.costs):,} listed architectures keeps the limits "
            f"({self.limits}); the nearest is {nearest} with {self.costs[nearest]}: loosen the "
            "limits"
        )


def space_of(architectures: Mapping[Architecture, Cost]) -> SearchSpace:
    """Returns the smallest space that holds all of some architectures.

    Raises:
        UserError: there are none, or they differ in length.
    """
    lengths = sorted({len(architecture) for architecture in architectures})
    if len(lengths) != 1:
        found = ", ".join(map(str, lengths)) or "no architecture at all"
        raise UserError(f"a search needs architectures of one number of layers, got {found}")
    layers = [sorted({path[layer] for path in architectures}) for layer in range(lengths[0])]
    return SearchSpace(tuple(tuple(names) for names in layers))
