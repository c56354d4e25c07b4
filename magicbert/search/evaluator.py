"""Scores architectures on dev batches, from whatever knows how good they are."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from magicbert.errors import UserError
from magicbert.space import Architecture
from magicbert.supernet.objective import Objective
from magicbert.supernet.scoring import Score
from magicbert.supernet.shared_prefix import SharedPrefix
from magicbert.supernet.supernet import Supernet

Group = Sequence[Architecture]
Watch = Callable[[Sequence[Group]], Iterable[Group]]
Scored = tuple[Architecture, tuple[Score, ...]]
# Paths of one group: what a kill may lose, against what groups cannot share without memory.
PATHS_AT_ONCE = 64


class Evaluator(Protocol):
    """Scores a set of architectures at once: how it shares work between them is its business.

    A checkpoint, a table and a user's own function are evaluators alike. `Judge` remembers scores
    and shares architectures out over ranks, so an evaluator does neither.
    """

    @property
    def num_batches(self) -> int:
        """Number of dev batches there are."""
        ...

    def __call__(self, architectures: Sequence[Architecture], batches: range) -> Iterator[Scored]:
        """Yields each architecture with its score on each of the dev batches ``batches``.

        Args:
            architectures: distinct; yielded in any order, each as soon as it is known.
            batches: numbers of dev batches, below `num_batches`; every architecture sees the same.
        """
        ...


class InheritedWeights:
    """Runs paths with the weights they inherit from the supernet, each common prefix once.

    Args:
        supernet: trained weights, on the device to compute on.
        objective: the task loss.
        batches: all dev batches that may be asked for, in their fixed order.
        max_bytes: of hidden states held, those kept from call to call among them.
        most_stacked: prefixes that take an operator in one call at most.
        watch: iterates over the groups of paths still to be scored, showing progress.
    """

    def __init__(
        self,
        supernet: Supernet,
        objective: Objective,
        batches: Sequence[Any],
        *,
        max_bytes: int = 0,
        most_stacked: int = 1,
        watch: Watch = iter,
    ) -> None:
        self.together = SharedPrefix(
            supernet, objective, batches, max_bytes=max_bytes, most_stacked=most_stacked
        )
        self.watch = watch

    @property
    def num_batches(self) -> int:
        """Number of dev batches there are."""
        return len(self.together.batches)

    def __call__(self, architectures: Sequence[Architecture], batches: range) -> Iterator[Scored]:
        """Yields each architecture with its score on each batch.

        Sorted paths go group by group, so that a search that is killed loses a group at most;
        neighbours share most, and what two groups share is kept where there is memory.
        """
        ordered = sorted(architectures)
        starts = range(0, len(ordered), PATHS_AT_ONCE)
        for group in self.watch([ordered[start : start + PATHS_AT_ONCE] for start in starts]):
            yield from self.together(group, batches).items()


@dataclass(frozen=True)
class KnownLosses:
    """Looks losses up: each "batch" is one of several measurements, such as a training seed.

    Attributes:
        losses: of every architecture, equally many.
    """

    losses: Mapping[Architecture, Sequence[float]]

    @property
    def num_batches(self) -> int:
        """Number of measurements of each architecture."""
        return min(map(len, self.losses.values()))

    def __call__(self, architectures: Sequence[Architecture], batches: range) -> Iterator[Scored]:
        """Yields what is known of each architecture."""
        for architecture in architectures:
            losses = self.losses[architecture]
            yield architecture, tuple(Score(losses[index], 0, 1) for index in batches)


@dataclass(frozen=True)
class LossFunction:
    """A user's own function of an architecture and the number of a batch.

    Attributes:
        function: returns a loss, or a `Score`; the same arguments must give the same.
        num_batches: how many numbers it may be asked about.
        name: what messages call it.
    """

    function: Callable[[Architecture, int], float | Score]
    num_batches: int
    name: str = "the scorer"

    def __call__(self, architectures: Sequence[Architecture], batches: range) -> Iterator[Scored]:
        """Yields what the function says of each architecture and batch."""
        for architecture in architectures:
            yield architecture, tuple(self._score(architecture, index) for index in batches)

    def _score(self, architecture: Architecture, batch: int) -> Score:
        found = self.function(architecture, batch)
        if isinstance(found, Score):
            return found
        try:
            return Score(float(found), 0, 1)
        except (TypeError, ValueError) as error:
            raise UserError(
                f"{self.name} returned {found!r} for {architecture}: it must return a loss "
                "(a number, the smaller the better) or a magicbert.supernet.scoring.Score"
            ) from error
