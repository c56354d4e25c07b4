"""Which path of a block is trained at each step, from a list that shrinks."""

from __future__ import annotations

from magicbert.config.sections import SamplingSection
from magicbert.space import Architecture
from magicbert.space.pool import Pool
from magicbert.space.randomness import keyed_generator

# A walk in a thinned pool may circle in a corner of it: now and then it begins anew.
STEPS_OF_A_WALK = 50


class PoolSampler:
    """SPOS or MAGIC-T over the members of a pool, which may be replaced between two steps.

    MAGIC-T goes to a member that differs in ``num_changes`` choices (a block's width is one of
    them), drawn uniformly; where the pool has none, to one of those that come nearest to it.

    Args:
        pool: what may be drawn.
        section: method and k.
        seed: with the step and the path before it, it decides the path.
        stream: keeps the draws of several blocks apart.
    """

    def __init__(self, pool: Pool, section: SamplingSection, seed: int, stream: str) -> None:
        self.pool = pool
        self.section = section
        self.seed = seed
        self.stream = stream

    def next(self, step: int, previous: Architecture | None) -> Architecture:
        """Returns the path of ``step`` (from 0); ``previous`` is ``None`` at the first one."""
        generator = keyed_generator(self.seed, self.stream, step)
        begins = previous is None or step % STEPS_OF_A_WALK == 0
        if self.section.method == "uniform" or begins or self.pool.count() == 1:
            return self.pool.sample(generator)
        assert previous is not None
        distances = self.pool.distances(previous)
        misses = abs(distances - self.section.num_changes)
        misses[distances == 0] = misses.max() + 1
        nearest = (misses == misses.min()).nonzero()[0]
        return self.pool[int(nearest[generator.integers(len(nearest))])]
