"""Sets of paths as searches ask for them: a whole block, uniform samples, an evolution.

All paths of a set would take minutes a turn on a CPU. Those behind one prefix are a subtree of the
tree of all prefixes, in which as large a share of the operator calls is saved as in the whole.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import chain

import numpy as np

from magicbert.space import Architecture, SearchSpace
from magicbert.space.randomness import keyed_generator
from magicbert.supernet.prefixes import num_prefixes

POPULATION, GENERATIONS, PARENTS, MUTATION = 50, 20, 10, 0.1


@dataclass(frozen=True, slots=True)
class Population:
    """Paths in the order in which a search asks for them.

    Attributes:
        generations: sets of paths; one that was asked for is not asked for again.
    """

    generations: tuple[tuple[Architecture, ...], ...]

    @property
    def paths(self) -> tuple[Architecture, ...]:
        """All paths."""
        return tuple(chain.from_iterable(self.generations))

    @property
    def calls_alone(self) -> int:
        """Operator calls of the paths one by one."""
        return sum(map(len, self.paths))

    @property
    def calls_together(self) -> int:
        """Operator calls if every distinct prefix is run once."""
        return num_prefixes(self.paths)

    @property
    def ratio(self) -> float:
        """How many times fewer operator calls that is."""
        return self.calls_alone / self.calls_together

    def behind(self, prefix: tuple[str, ...]) -> Population:
        """Returns the paths that begin with a prefix."""
        kept = (
            tuple(path for path in paths if path.operators[: len(prefix)] == prefix)
            for paths in self.generations
        )
        return Population(tuple(paths for paths in kept if paths))

    def like_the_whole(self, num_layers: int) -> Population:
        """Returns the subtree behind so many layers whose ratio is nearest to that of all paths."""
        prefixes = sorted({path.operators[:num_layers] for path in self.paths})
        whole = self.ratio
        return min(map(self.behind, prefixes), key=lambda part: abs(part.ratio - whole))


def whole_block(space: SearchSpace) -> Population:
    """Returns all paths of a block."""
    return Population((tuple(space.enumerate()),))


def uniform(space: SearchSpace, num_paths: int, seed: int) -> Population:
    """Returns distinct paths drawn uniformly."""
    generator = keyed_generator(seed, "bench-uniform", 0)
    drawn: dict[Architecture, None] = {}
    while len(drawn) < num_paths:
        drawn[space.sample(generator)] = None
    return Population((tuple(drawn),))


def evolution(space: SearchSpace, seed: int) -> Population:
    """Returns the generations of an evolution of 50 paths over 20 generations.

    Half of a generation are mutants (each operator with a chance of 10%), half are crossed, both of
    the ten fittest so far. The fitness is a random worth of each operator in its layer, so that the
    paths do not depend on a model.
    """
    generator = keyed_generator(seed, "bench-evolution", 0)
    worths = {
        (layer, name): float(generator.normal())
        for layer, names in enumerate(space.layers)
        for name in names
    }

    def fitness(path: Architecture) -> float:
        return sum(worths[pair] for pair in enumerate(path))

    first = uniform(space, POPULATION, seed).paths
    generations, seen, parents = [first], set(first), sorted(first, key=fitness)[-PARENTS:]
    for _ in range(GENERATIONS):
        children = [
            *new_children(partial(mutant, space, parents, generator), seen),
            *new_children(partial(crossed, parents, generator), seen),
        ]
        generations.append(tuple(children))
        parents = sorted({*parents, *children}, key=fitness)[-PARENTS:]
    return Population(tuple(generations))


def new_children(make: Callable[[], Architecture], seen: set[Architecture]) -> list[Architecture]:
    """Returns half a generation of paths that were not seen; fewer where there are hardly any."""
    children: list[Architecture] = []
    for _ in range(20 * POPULATION):
        child = make()
        if child not in seen:
            seen.add(child)
            children.append(child)
        if len(children) == POPULATION // 2:
            break
    return children


def mutant(
    space: SearchSpace, parents: list[Architecture], generator: np.random.Generator
) -> Architecture:
    """Returns a parent with some operators drawn anew."""
    parent = parents[int(generator.integers(len(parents)))]
    drawn = space.sample(generator)
    is_new = generator.random(len(parent)) < MUTATION
    return Architecture(tuple(np.where(is_new, drawn.operators, parent.operators).tolist()))


def crossed(parents: list[Architecture], generator: np.random.Generator) -> Architecture:
    """Returns a path with every operator from one of two parents."""
    one, other = (
        parents[int(index)].operators for index in generator.integers(len(parents), size=2)
    )
    return Architecture(tuple(np.where(generator.random(len(one)) < 0.5, one, other).tolist()))
