"""A search: a strategy, what it may choose from, and who scores."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from magicbert.config.sections import SearchSection
from magicbert.search.candidate import Candidate
from magicbert.search.judge import Judge
from magicbert.search.pareto import pareto_front
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
        return self.ranking()[: self.section.num_results]

    def ranking(self) -> list[Candidate]:
        """Returns every architecture once: the last round's come first, each round's best first."""
        last: dict[Architecture, Candidate] = {}
        for one in reversed(self.rounds):
            for candidate in one.candidates:
                last.setdefault(candidate.architecture, candidate)
        return list(last.values())

    def front(self, objectives: Sequence[str]) -> list[Candidate]:
        """Returns what no other candidate beats in every one of these figures, best loss first.

        All are compared on the batches that every candidate was scored on; then those of the front
        are scored on as many as the finalists, and those that this leaves dominated drop out.
        """
        ranking = self.ranking()
        common = min(candidate.num_batches for candidate in ranking)
        paths = [candidate.architecture for candidate in ranking]
        number = self.rounds[-1].number
        front = pareto_front(self.judge(paths, common, number), objectives)
        paths = [candidate.architecture for candidate in front]
        finals = self.judge(paths, self.section.num_final_batches, number)
        return pareto_front(finals, objectives)

    def scored(self) -> list[Candidate]:
        """Returns every architecture that was scored, once per number of dev batches."""
        first: dict[tuple[Architecture, int], Candidate] = {}
        for one in self.rounds:
            for candidate in one.candidates:
                first.setdefault((candidate.architecture, candidate.num_batches), candidate)
        return list(first.values())
