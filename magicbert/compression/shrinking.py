"""Progressive shrinking of a block's paths, bin by bin (NAS-BERT 3.2.2)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from magicbert.compression.bins import Numbers
from magicbert.space import Architecture
from magicbert.space.pool import Pool
from magicbert.space.randomness import keyed_generator

Losses = Callable[[Sequence[Architecture]], Mapping[Architecture, float]]


@dataclass(frozen=True)
class Candidates:
    """The paths that are left, and the bin of each.

    Attributes:
        pool: the paths.
        bins: ``[paths]``, each path's bin, 0..B-1.
    """

    pool: Pool
    bins: Numbers

    def sizes(self) -> dict[int, int]:
        """Returns the number of paths in each bin that has any."""
        numbers, counts = np.unique(self.bins, return_counts=True)
        return dict(zip(numbers.tolist(), counts.tolist(), strict=True))

    def is_shrunk(self, keep: int) -> bool:
        """Whether no bin holds more than ``keep`` paths."""
        return max(self.sizes().values()) <= keep


@dataclass(frozen=True)
class Shrinkage:
    """The rule: how many are scored in a bin, and how many stay at least.

    Attributes:
        sample: E, paths of a bin that are scored; all of a smaller one.
        keep: m, paths of a bin that are never removed.
        seed: with the round, it decides what is scored.
    """

    sample: int
    keep: int
    seed: int

    def halve(self, candidates: Candidates, number: int, losses: Losses) -> Candidates:
        """Removes the worse half of the scored paths of each bin, never below ``keep``."""
        removed: list[int] = []
        scored = self._scored(candidates, number, losses)
        for ranking in scored.values():
            in_bin = candidates.sizes()[int(candidates.bins[ranking[0]])]
            num_removed = min(len(ranking) // 2, max(in_bin - self.keep, 0))
            removed.extend(ranking[len(ranking) - num_removed :])
        stays = np.ones(candidates.pool.count(), dtype=bool)
        stays[removed] = False
        return Candidates(candidates.pool.kept(stays), candidates.bins[stays])

    def finalists(
        self, candidates: Candidates, losses: Losses
    ) -> list[tuple[int, Architecture, float]]:
        """Returns bin, path and loss of the ``keep`` best scored of each bin, best first."""
        found: dict[Architecture, float] = {}

        def noted(paths: Sequence[Architecture]) -> Mapping[Architecture, float]:
            found.update(losses(paths))
            return found

        ranked = self._scored(candidates, -1, noted)
        return [
            (number, candidates.pool[index], found[candidates.pool[index]])
            for number, ranking in ranked.items()
            for index in ranking[: self.keep]
        ]

    def _scored(self, candidates: Candidates, number: int, losses: Losses) -> dict[int, list[int]]:
        """Returns for each bin the numbers of its scored paths, best first."""
        drawn = {one: self._draw(candidates, one, number) for one in candidates.sizes()}
        paths = {index: candidates.pool[index] for own in drawn.values() for index in own}
        known = losses(list(paths.values()))
        return {
            one: sorted(own, key=lambda index: (known[paths[index]], paths[index]))
            for one, own in drawn.items()
        }

    def _draw(self, candidates: Candidates, bin_number: int, number: int) -> list[int]:
        members = np.flatnonzero(candidates.bins == bin_number)
        if len(members) > self.sample:
            generator = keyed_generator(self.seed, f"bin-{bin_number}", number)
            members = np.sort(generator.choice(members, self.sample, replace=False))
        return [int(index) for index in members]
