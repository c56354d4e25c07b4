"""A search: a strategy, what it may choose from, and who scores."""

from __future__ import annotations

from collections.abc import Callable

from magicbert.config.sections import SearchSection
from magicbert.search.candidate import Candidate
from magicbert.search.judge import Judge
from magicbert.search.rounds import Round
from magicbert.search.strategies import build_strategy
from magicbert.space import Architecture


class Search:
    """A search under limits; the same seed and scores give the same result.

    Args:
        section: the strategy and its sizes.
        judge: scores what may be chosen.

    Raises:
        UserError: no architecture keeps the limits; names the nearest one.
    """

    def __init__(self, section: SearchSection, judge: Judge) -> None:
        judge.choices.check()
        self.section = section
        self.judge = judge
        self.strategy = build_strategy(section, judge.choices)
        self.rounds: list[Round] = []

    def run(self, on_round: Callable[[Round], None] = lambda _: None) -> list[Candidate]:
        """Runs all rounds and returns the best candidates, best first.

        Args:
            on_round: told of every finished round, the finals included.
        """
        for latest in self.strategy.rounds(self.judge):
            self.rounds.append(latest)
            on_round(latest)
        return list(self.rounds[-1].candidates[: self.section.num_results])

    def scored(self) -> list[Candidate]:
        """Returns every architecture that was scored, once per number of dev batches."""
        first: dict[tuple[Architecture, int], Candidate] = {}
        for one in self.rounds:
            for candidate in one.candidates:
                first.setdefault((candidate.architecture, candidate.num_batches), candidate)
        return list(first.values())
