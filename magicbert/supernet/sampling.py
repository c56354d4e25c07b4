"""Which path is trained at each step: uniform (SPOS), gradually changing (MAGIC-T), strictly fair.

A path is a pure function of (seed, step) and of the path before it, so every rank and every
micro-batch of a step agrees without a message, and a resumed run continues the same walk.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

from magicbert.config.sections import SamplingSection
from magicbert.errors import UserError
from magicbert.space import Architecture, SearchSpace
from magicbert.space.randomness import keyed_generator


class PathSampler(Protocol):
    """Gives the path of a step."""

    def next(self, step: int, previous: Architecture | None) -> Architecture:
        """Returns the path of ``step`` (from 0); ``previous`` is ``None`` at the first one."""
        ...


class UniformSampler:
    """Single-path one-shot (SPOS): every path is drawn uniformly, whatever came before.

    Args:
        space: live candidates per layer.
        seed: with the step, it decides the path.
    """

    def __init__(self, space: SearchSpace, seed: int) -> None:
        self.space = space
        self.seed = seed

    def next(self, step: int, previous: Architecture | None) -> Architecture:
        """Returns the path of ``step``; ``previous`` is not used."""
        return self.space.sample(keyed_generator(self.seed, "path", step))


class MagicTSampler:
    """MAGIC-T: consecutive paths differ in ``num_changes`` layers (MAGIC 4.1).

    The layers are drawn uniformly among those with more than one live operator, each gets another
    operator, drawn uniformly. The moves are symmetric, so the walk's stationary law is uniform.

    A layer with two live operators has a single other operator: if such a layer is drawn at every
    step it alternates, and if all layers are like that the walk is bipartite and never mixes.
    A space with such a layer therefore gets the *lazy* walk: a drawn layer is redrawn
    among all its live operators, its own included, so ``num_changes`` is the most that can change.

    Args:
        space: live candidates per layer.
        seed: with the step and the previous path, it decides the path.
        num_changes: k, the number of layers drawn at each step.

    Raises:
        UserError: fewer than ``num_changes`` layers have a choice.
    """

    def __init__(self, space: SearchSpace, seed: int, num_changes: int) -> None:
        sizes = [len(names) for names in space.layers]
        self.space = space
        self.seed = seed
        self.open_layers = tuple(layer for layer, size in enumerate(sizes) if size > 1)
        self.is_lazy = 2 in sizes
        self.num_changes = num_changes
        if self.open_layers and not 1 <= num_changes <= len(self.open_layers):
            raise UserError(
                f"sampling.num_changes: must be in 1..{len(self.open_layers)}, the number of "
                f"layers with more than one operator, got {num_changes}"
            )

    def next(self, step: int, previous: Architecture | None) -> Architecture:
        """Returns the path of ``step``: uniform at first, then ``num_changes`` layers away."""
        generator = keyed_generator(self.seed, "path", step)
        if previous is None:
            return self.space.sample(generator)
        self.space.check(previous)
        if not self.open_layers:
            return previous
        operators = list(previous.operators)
        for layer in generator.choice(self.open_layers, self.num_changes, replace=False):
            operators[layer] = self._another(int(layer), operators[layer], generator)
        return Architecture(tuple(operators))

    def _another(self, layer: int, current: str, generator: np.random.Generator) -> str:
        """Draws the new operator of a layer; the lazy walk may draw the current one again."""
        names = self.space.layers[layer]
        choices = names if self.is_lazy else [name for name in names if name != current]
        return choices[int(generator.integers(len(choices)))]


class StrictFairSampler:
    """Strict fairness: a layer of C candidates takes each exactly once in every C steps.

    Each round of a layer is a random permutation of its candidates, a pure function of (seed,
    round, layer); layers are permuted independently, so a single path is uniform. Layers of
    different sizes have rounds of their own length.

    FairNAS (Chu et al., 2019, 3.2) draws the same permutations, but adds up the gradients of the C
    paths of a round and makes one update. Here every path gets an optimizer step of its own: a
    step costs what it costs with other samplers and the weights move between the paths of a round.

    Args:
        space: live candidates per layer.
        seed: with round and layer, it decides the permutation.
    """

    def __init__(self, space: SearchSpace, seed: int) -> None:
        self.space = space
        self.seed = seed

    def next(self, step: int, previous: Architecture | None) -> Architecture:
        """Returns the path of ``step``; ``previous`` is not used."""
        return Architecture(
            tuple(self._turn(layer, names, step) for layer, names in enumerate(self.space.layers))
        )

    def _turn(self, layer: int, names: tuple[str, ...], step: int) -> str:
        """Returns the candidate of a layer whose turn it is."""
        number, turn = divmod(step, len(names))
        generator = keyed_generator(self.seed, f"strict-fair/{layer}", number)
        return names[int(generator.permutation(len(names))[turn])]


def build_sampler(section: SamplingSection, space: SearchSpace, seed: int) -> PathSampler:
    """Returns the sampler that a configuration asks for."""
    if section.method == "uniform":
        return UniformSampler(space, seed)
    if section.method == "strict-fair":
        return StrictFairSampler(space, seed)
    return MagicTSampler(space, seed, section.num_changes)
