"""What a strategy is: rounds that ask for scores, the last of which ranks the finalists."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from magicbert.config.sections import SearchSection
from magicbert.search.candidate import Candidate
from magicbert.search.judge import Judge
from magicbert.search.shrinking import Pair
from magicbert.space import Architecture, SearchSpace


@dataclass(frozen=True, slots=True)
class Round:
    """One round.

    Attributes:
        number: from 1; the finalists' round comes last.
        candidates: what this round asked for, best first; within the limits.
        num_batches: dev batches that scored them.
        space: the space that the next round chooses from.
        num_left: architectures that the next round chooses from.
        dropped: (layer, operator) pairs that the round dropped, worst first.
    """

    number: int
    candidates: tuple[Candidate, ...]
    num_batches: int
    space: SearchSpace
    num_left: int
    dropped: tuple[Pair, ...] = ()


class Strategy(Protocol):
    """A way to spend scores: a pure function of the seed and of the scores it is given."""

    def rounds(self, judge: Judge) -> Iterator[Round]:
        """Yields every round as it ends; the candidates of the last one are the result."""
        ...


def final_round(
    judge: Judge,
    finalists: Iterable[Architecture],
    section: SearchSection,
    number: int,
    space: SearchSpace,
) -> Round:
    """Ranks the finalists on more dev batches.

    Args:
        judge: scores them.
        finalists: the most promising first; no more than ``num_finalists`` are taken.
        section: sizes of the finals.
        number: of the round.
        space: what is left of the space.
    """
    chosen = list(dict.fromkeys(finalists))[: section.num_finalists]
    num_batches = judge.available(section.num_final_batches)
    candidates = judge(chosen, num_batches, number)
    return Round(number, candidates, num_batches, space, len(chosen))


def best_of(rounds: Sequence[Round]) -> list[Architecture]:
    """Returns every architecture of some rounds once, the best first."""
    candidates = (candidate for one in rounds for candidate in one.candidates)
    ranking = sorted(candidates, key=lambda candidate: candidate.rank_key)
    return list(dict.fromkeys(candidate.architecture for candidate in ranking))
