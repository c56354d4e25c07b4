"""The architectures of a space that keep limits: counted, listed, and drawn with equal chance.

Costs add up over layers, so prefixes of equal cost are interchangeable. A graph with one node per
number of layers and reachable cost, each with the number of prefixes that reach it, says how
many architectures keep the limits, lets one be drawn by walking back from an admitted
total, and shows what comes nearest when there is none. It stays small because layers
share operators: 24 layers of 4 operators reach at most 2,925 costs.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, field
from typing import cast

import numpy as np

from magicbert.errors import UserError
from magicbert.space.architecture import Architecture
from magicbert.space.cost import Cost, CostModel, Limits
from magicbert.space.search_space import SearchSpace

MAX_NODES = 8_000
GRID_CELLS = 2_500
ENUMERATION_FACTOR = 8
TRIES_PER_DRAW = 20


@dataclass(slots=True)
class Node:
    """All prefixes of one length and one cost.

    Attributes:
        cost: their cost, the fixed part included (their mean cost, where costs share a node).
        count: their number.
        parents: (last operator, node of the prefix before it).
    """

    cost: Cost
    count: int = 0
    parents: list[tuple[str, Node]] = field(default_factory=list)

    def add(self, operator: str, parent: Node, cost: Cost) -> None:
        """Adds the prefixes that reach this node at ``cost`` through one more operator."""
        if cost != self.cost:
            share = parent.count / (self.count + parent.count)
            parameters = self.cost.parameters + share * (cost.parameters - self.cost.parameters)
            flops = self.cost.flops + share * (cost.flops - self.cost.flops)
            latency = self.cost.latency_ns + share * (cost.latency_ns - self.cost.latency_ns)
            self.cost = Cost(round(parameters), flops, round(latency))
        self.count += parent.count
        self.parents.append((operator, parent))


class TooManyNodesError(Exception):
    """A space reaches so many costs that close ones have to share a node."""


class FeasiblePaths:
    """The architectures of ``space`` that keep ``limits``.

    Only where a layer reaches more than `MAX_NODES` different costs do close ones share a node, on
    a grid of about `GRID_CELLS`. `is_exact` is false in that case: counts and chances are close
    but not exact, and an architecture just inside a limit may be missed. Whatever is handed out
    keeps the limits by its exact cost.

    Args:
        space: where to look.
        model: cost of every operator of the space.
        limits: what must hold.
    """

    def __init__(self, space: SearchSpace, model: CostModel, limits: Limits) -> None:
        self.space = space
        self.model = model
        self.limits = limits
        self.is_exact = True
        wide = limits
        try:
            self._totals = self._build(self._limited_figures, MAX_NODES)
        except TooManyNodesError:
            self.is_exact = False
            cell = self._grid_cell()
            self._totals = self._build(
                lambda cost: self._limited_figures(
                    Cost(
                        cost.parameters // cell.parameters,
                        cost.flops // cell.flops,
                        cost.latency_ns // cell.latency_ns,
                    )
                ),
                2 * GRID_CELLS,
            )
            # A node at the edge of the limits holds paths on both sides.
            wide = limits.widened(cell)
        self._admitted = [node for node in self._totals if wide.admits(node.cost)]

    def __contains__(self, architecture: object) -> bool:
        return architecture in self.space and self._is_admitted(cast(Architecture, architecture))

    def cost(self, architecture: Architecture) -> Cost:
        """Returns what an architecture costs."""
        return self.model.cost(architecture)

    def within(self, space: SearchSpace) -> FeasiblePaths:
        """Returns those that lie in a smaller space."""
        return FeasiblePaths(space, self.model, self.limits)

    def count(self) -> int:
        """Returns how many architectures keep the limits."""
        return sum(node.count for node in self._admitted)

    def enumerate(self) -> Iterator[Architecture]:
        """Yields every architecture that keeps the limits."""
        for node in self._admitted:
            yield from filter(self._is_admitted, paths_to(node, self.space.num_layers))

    def draw(self, number: int, generator: np.random.Generator) -> list[Architecture]:
        """Returns ``number`` distinct architectures, drawn uniformly; all if there are fewer."""
        if self.is_exact and self.count() <= ENUMERATION_FACTOR * number:
            everything = sorted(self.enumerate())
            if len(everything) <= number:
                return everything
            chosen = generator.choice(len(everything), number, replace=False)
            return [everything[index] for index in chosen]
        drawn: dict[Architecture, None] = {}
        for _ in range(TRIES_PER_DRAW * number if self._admitted else 0):
            architecture = self._draw_one(generator)
            if self._is_admitted(architecture):
                drawn[architecture] = None
            if len(drawn) == number:
                break
        return list(drawn) or [path for path in self._extremes() if self._is_admitted(path)]

    def nearest(self) -> Architecture:
        """Returns what misses the limits by the least (`Limits.excess`); the smallest of equals."""

        def key(cost: Cost) -> tuple[float, int, float]:
            return self.limits.excess(cost), cost.parameters, cost.flops

        node = min(self._totals, key=lambda node: key(node.cost))
        candidates = [next(paths_to(node, self.space.num_layers)), *self._extremes()]
        return min(candidates, key=lambda path: key(self.model.cost(path)))

    def check(self) -> None:
        """Raises `UserError` with the nearest architecture if none keeps the limits."""
        if self.draw(1, np.random.default_rng(0)):
            return
        nearest = self.nearest()
        low, high = self.model.range(self.space)
        raise UserError(
            f"no architecture of the space keeps the limits ({self.limits}); the nearest is "
            f"{nearest} with {self.model.cost(nearest)}; the space goes from {low} to {high}: "
            "loosen the limits or widen the space"
        )

    def _build(self, key: Callable[[Cost], Hashable], max_nodes: int) -> list[Node]:
        """Returns the nodes of whole architectures; prefixes of one ``key`` share a node."""
        nodes = [Node(self.model.fixed, count=1)]
        for names in self.space.layers:
            steps = [(name, self.model.of_operator(name)) for name in names]
            following: dict[Hashable, Node] = {}
            for node in nodes:
                for name, cost in steps:
                    total = node.cost + cost
                    place = key(total)
                    if place not in following:
                        following[place] = Node(total)
                    following[place].add(name, node, total)
                if len(following) > max_nodes:
                    raise TooManyNodesError
            nodes = list(following.values())
        return nodes

    def _limited_figures(self, cost: Cost) -> tuple[float, ...]:
        """Returns the figures that the limits look at: paths that differ elsewhere share nodes."""
        limits = self.limits
        figures: list[float] = []
        if limits.max_parameters or limits.min_parameters:
            figures.append(cost.parameters)
        if limits.max_flops:
            figures.append(cost.flops)
        if limits.max_latency_ms:
            figures.append(cost.latency_ns)
        return tuple(figures)

    def _grid_cell(self) -> Cost:
        """Returns the size of one cell, for about `GRID_CELLS` over the limited figures."""
        low, high = self.model.range(self.space)
        cells = GRID_CELLS ** (1 / max(len(self._limited_figures(low)), 1))
        return Cost(
            max(int((high.parameters - low.parameters) / cells), 1),
            max((high.flops - low.flops) / cells, 1.0),
            max(int((high.latency_ns - low.latency_ns) / cells), 1),
        )

    def _extremes(self) -> Iterator[Architecture]:
        """Yields the paths that are smallest, cheapest and fastest, and the largest one."""
        of = self.model.of_operator
        for key in (
            lambda name: of(name).parameters,
            lambda name: of(name).flops,
            lambda name: of(name).latency_ns,
            lambda name: -of(name).parameters,
        ):
            yield Architecture(tuple(min(names, key=key) for names in self.space.layers))

    def _is_admitted(self, architecture: Architecture) -> bool:
        return self.limits.admits(self.model.cost(architecture))

    def _draw_one(self, generator: np.random.Generator) -> Architecture:
        """Draws a total by its number of architectures, then walks back, last layer first."""
        node = self._admitted[weighted_index([n.count for n in self._admitted], generator)]
        names: list[str] = []
        while node.parents:
            counts = [parent.count for _, parent in node.parents]
            name, node = node.parents[weighted_index(counts, generator)]
            names.append(name)
        return Architecture(tuple(reversed(names)))


def paths_to(node: Node, num_layers: int) -> Iterator[Architecture]:
    """Yields every architecture that ends in a node."""

    def prefixes(node: Node, num_layers: int) -> Iterator[tuple[str, ...]]:
        if num_layers == 0:
            yield ()
        for name, parent in node.parents:
            for prefix in prefixes(parent, num_layers - 1):
                yield (*prefix, name)

    return (Architecture(names) for names in prefixes(node, num_layers))


def weighted_index(weights: list[int], generator: np.random.Generator) -> int:
    """Draws an index with chance proportional to whole weights of any size."""
    total = sum(weights)
    # 8 bytes more than needed: the remainder's bias is below 2^-64.
    number = int.from_bytes(generator.bytes(total.bit_length() // 8 + 9), "little") % total
    for index, weight in enumerate(weights):
        number -= weight
        if number < 0:
            return index
    raise AssertionError("the weights add up to the total")
