"""Whether the ranks together train on the samples of a step, each of them once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np

from magicbert.supernet.objective import BatchSource

HASH_BITS = 31
MODULUS = 2**HASH_BITS
# Odd constants of Knuth's and of splitmix64's multiplicative hashes.
FIRST_FACTOR, SECOND_FACTOR = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9


@runtime_checkable
class NamedSamples(Protocol):
    """A source whose batches name their rows in ``sample_ids``."""

    def sample_ids(self, step: int) -> Any:
        """Returns the rows that all ranks together read in one optimizer step."""
        ...


@dataclass(frozen=True)
class StepData:
    """What one rank reads in one step.

    Attributes:
        step: the step that the source was asked for.
        micro_batches: this rank's.
        own_samples: hash of this rank's rows; 0 where the source names none.
        all_samples: hash of the rows of all ranks, as this rank derives them from the step.
    """

    step: int
    micro_batches: Sequence[Any]
    own_samples: int
    all_samples: int

    @property
    def sample_ids(self) -> list[int]:
        """The rows of this rank, where batches name them."""
        batches = self.micro_batches
        return [int(id) for batch in batches for id in getattr(batch, "sample_ids", ())]


class DatedSource:
    """A source that says with each item which step and samples it is of.

    The hashes are taken here because a `Prefetcher` calls this in the background.

    Args:
        source: batches as a function of the step.
    """

    def __init__(self, source: BatchSource) -> None:
        self.source = source

    def step_batches(self, step: int, rank: int, num_ranks: int) -> list[StepData]:
        """Returns one item: what the rank reads in the step."""
        data = StepData(step, self.source.step_batches(step, rank, num_ranks), 0, 0)
        if not isinstance(self.source, NamedSamples):
            return [data]
        own, whole = hash_of(data.sample_ids), hash_of(self.source.sample_ids(step))
        return [StepData(step, data.micro_batches, own, whole)]


def hash_of(ids: Any) -> int:
    """Returns a hash of a collection in which order does not count, below 2**31.

    The hashes of the parts of a collection add up to its own, modulo 2**31.
    """
    words = np.asarray(ids, dtype=np.uint64)
    mixed = (words + np.uint64(1)) * np.uint64(FIRST_FACTOR)
    mixed = (mixed ^ (mixed >> np.uint64(31))) * np.uint64(SECOND_FACTOR)
    return int((mixed >> np.uint64(64 - HASH_BITS)).sum() % np.uint64(MODULUS))
