"""Progressive shrinking by architectures: a pool in bins of size and latency, halved by rounds."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from magicbert.config.sections import SearchSection
from magicbert.errors import UserError
from magicbert.search.bins import Bins
from magicbert.search.choices import Choices
from magicbert.search.judge import Judge
from magicbert.search.rounds import Round, final_round
from magicbert.space import Architecture
from magicbert.space.randomness import keyed_generator

Pool = dict[int, list[Architecture]]


@dataclass(frozen=True)
class ShrinkArchitectures:
    """PS of NAS-BERT (3.2.2) on a pool: all architectures, or ``pool_size`` random ones.

    A round samples every bin (E = ``samples_per_round`` over all bins) and drops the worse half of
    the sample (R = E/2), but never more than leaves ``kept_per_bin`` (m). It ends when no bin
    holds more than that. The finalists are the best of every bin in turn.

    Attributes:
        choices: what may be chosen.
        section: sizes of pool, bins and rounds.
    """

    choices: Choices
    section: SearchSection

    def rounds(self, judge: Judge) -> Iterator[Round]:
        """Yields every round, then the finals.

        Raises:
            UserError: no architecture's latency lies in the bin of its size.
        """
        section, space = self.section, self.choices.space
        pool = self.fill()
        num_batches = judge.available(section.num_dev_batches)
        losses: dict[Architecture, float] = {}
        number = 0
        while number < section.num_rounds and is_crowded(pool, section.kept_per_bin):
            number += 1
            generator = keyed_generator(section.seed, "pool", number)
            sampled = sample(pool, section.samples_per_round, generator)
            drawn = [path for paths in sampled.values() for path in paths]
            candidates = judge(drawn, num_batches, number)
            losses |= {c.architecture: c.loss for c in candidates}
            pool = shrink_pool(pool, sampled, losses, section.kept_per_bin)
            left = sum(map(len, pool.values()))
            yield Round(number, candidates, num_batches, space, left)
        yield final_round(judge, in_turn(pool, losses), section, number + 1, space)

    def fill(self) -> Pool:
        """Returns the bins with what the limits let in."""
        section = self.section
        generator = keyed_generator(section.seed, "pool", 0)
        paths = self.choices.draw(section.pool_size, generator)
        costs = {path: self.choices.cost(path) for path in paths}
        by_latency = section.bin_by == "size-and-latency"
        bins = Bins.over(section.num_bins, costs.values(), by_latency=by_latency)
        pool = bins.sort(costs)
        if not pool:
            raise UserError(
                f"search.bin_by: none of {len(paths):,} architectures has its latency in the bin "
                "of its size; take 'size' or fewer search.num_bins"
            )
        return pool


def is_crowded(pool: Mapping[int, list[Architecture]], kept_per_bin: int) -> bool:
    """Returns whether a bin holds more than it may keep."""
    return any(len(paths) > kept_per_bin for paths in pool.values())


def sample(
    pool: Mapping[int, list[Architecture]], number: int, generator: np.random.Generator
) -> Pool:
    """Returns random members of each bin, equally many where there are enough."""
    share = max(number // len(pool), 1)
    sampled: Pool = {}
    for place, paths in pool.items():
        chosen = generator.permutation(len(paths))[:share]
        sampled[place] = [paths[index] for index in sorted(chosen)]
    return sampled


def shrink_pool(
    pool: Mapping[int, list[Architecture]],
    sampled: Mapping[int, list[Architecture]],
    losses: Mapping[Architecture, float],
    kept_per_bin: int,
) -> Pool:
    """Drops the worse half of each bin's sample, never so that fewer than ``kept_per_bin`` stay."""
    smaller: Pool = {}
    for place, paths in pool.items():
        drops = min(len(sampled[place]) // 2, max(len(paths) - kept_per_bin, 0))
        worst = sorted(sampled[place], key=lambda path: (losses[path], str(path)), reverse=True)
        dropped = set(worst[:drops])
        smaller[place] = [path for path in paths if path not in dropped]
    return smaller


def in_turn(
    pool: Mapping[int, list[Architecture]], losses: Mapping[Architecture, float]
) -> list[Architecture]:
    """Returns the members of the pool: the best of every bin, then the second best, and so on.

    Members that were never scored come last.
    """

    def key(path: Architecture) -> tuple[float, str]:
        return losses.get(path, float("inf")), str(path)

    columns = [sorted(paths, key=key) for paths in pool.values()]
    rows = itertools.zip_longest(*columns)
    members = [path for row in rows for path in row if path is not None]
    return sorted(members, key=lambda path: path not in losses)
