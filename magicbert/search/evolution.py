"""Evolution: children of the fittest by crossover and mutation, always within the limits."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from magicbert.config.sections import SearchSection
from magicbert.search.candidate import Candidate
from magicbert.search.choices import Choices
from magicbert.search.judge import Judge
from magicbert.search.pareto import select
from magicbert.search.rounds import Round, best_of, final_round
from magicbert.space import Architecture
from magicbert.space.randomness import keyed_generator

TRIES_PER_CHILD = 50


@dataclass(frozen=True)
class Evolution:
    """SPOS's evolution; with several objectives, parents are selected as in NSGA-II.

    The first generation is random. A later one has as many children, none of which was scored
    before, of the ``population_size`` fittest of all that were scored.

    Attributes:
        choices: what may be chosen.
        section: sizes and rates.
    """

    choices: Choices
    section: SearchSection

    def rounds(self, judge: Judge) -> Iterator[Round]:
        """Yields one round per generation, then the finals of the best."""
        section, choices = self.section, self.choices
        num_batches = judge.available(section.num_dev_batches)
        done: list[Round] = []
        scored: dict[Architecture, Candidate] = {}
        while len(done) < section.num_rounds:
            number = len(done) + 1
            generator = keyed_generator(section.seed, "evolution", number)
            children = self._generation(scored, generator)
            if not children:
                break
            candidates = judge(children, num_batches, number)
            scored |= {candidate.architecture: candidate for candidate in candidates}
            left = choices.count() - len(scored)
            done.append(Round(number, candidates, num_batches, choices.space, left))
            yield done[-1]
        generator = keyed_generator(section.seed, "evolution", 0)
        finalists = best_of(done) or choices.draw(section.num_finalists, generator)
        yield final_round(judge, finalists, section, len(done) + 1, choices.space)

    def _generation(
        self, scored: dict[Architecture, Candidate], generator: np.random.Generator
    ) -> list[Architecture]:
        """Returns architectures that were not scored before."""
        section = self.section
        if not scored:
            return self.choices.draw(section.samples_per_round, generator)
        fittest = select(list(scored.values()), section.objectives, section.population_size)
        breeding = Breeding(self.choices, section, [c.architecture for c in fittest], generator)
        return breeding.children(frozenset(scored))


class Breeding:
    """Makes the children of one generation.

    Args:
        choices: what may be chosen.
        section: rates of crossover and mutation.
        parents: the fittest first.
        generator: of all draws.
    """

    def __init__(
        self,
        choices: Choices,
        section: SearchSection,
        parents: Sequence[Architecture],
        generator: np.random.Generator,
    ) -> None:
        self.choices = choices
        self.section = section
        self.parents = parents
        self.generator = generator

    def children(self, taken: frozenset[Architecture]) -> list[Architecture]:
        """Returns distinct children outside ``taken``; fewer if there are no more to be had."""
        number = self.section.samples_per_round
        children: dict[Architecture, None] = {}
        spare: list[Architecture] | None = None
        while len(children) < number:
            child, is_new = self._try(taken, children)
            if not is_new:
                if spare is None:
                    drawn = self.choices.draw(len(taken) + number, self.generator)
                    spare = [path for path in drawn if path not in taken]
                spare = [path for path in spare if path not in children]
                if not spare:
                    break
                child = nearest(spare, child)
            children[child] = None
        return list(children)

    def _try(
        self, taken: frozenset[Architecture], children: dict[Architecture, None]
    ) -> tuple[Architecture, bool]:
        """Breeds until a child is new and may be chosen; returns the last, and whether it is."""
        for _ in range(TRIES_PER_CHILD):
            child = self._breed()
            if child in self.choices and child not in taken and child not in children:
                return child, True
        return child, False

    def _breed(self) -> Architecture:
        """Returns a child of one or two parents, which need not keep the limits."""
        first = self._parent()
        if self.generator.random() < self.section.crossover_fraction:
            return self.mutate(self.cross(first, self._parent()))
        if self.generator.random() < 0.5:
            return self.exchange(first)
        return self.mutate(first)

    def _parent(self) -> Architecture:
        return self.parents[int(self.generator.integers(len(self.parents)))]

    def cross(self, first: Architecture, second: Architecture) -> Architecture:
        """Takes each layer from one of two parents, with equal chance."""
        takes_first = self.generator.random(len(first)) < 0.5
        pairs = zip(first, second, takes_first, strict=True)
        return Architecture(tuple(a if is_first else b for a, b, is_first in pairs))

    def mutate(self, parent: Architecture) -> Architecture:
        """Draws each layer anew with chance ``mutation_rate``, and at least one."""
        changes = self.generator.random(len(parent)) < self.section.mutation_rate
        changes[int(self.generator.integers(len(parent)))] = True
        child = parent
        for layer in np.flatnonzero(changes):
            names = self.choices.space.layers[layer]
            child = child.replace(int(layer), names[int(self.generator.integers(len(names)))])
        return child

    def exchange(self, parent: Architecture) -> Architecture:
        """Exchanges the operators of two layers: the child costs what its parent costs."""
        first, second = (int(n) for n in self.generator.choice(len(parent), 2, replace=False))
        return parent.replace(first, parent[second]).replace(second, parent[first])


def nearest(paths: Sequence[Architecture], wish: Architecture) -> Architecture:
    """Returns the path that differs from the wish in the fewest layers."""
    return min(paths, key=lambda path: (path.distance(wish), path))
