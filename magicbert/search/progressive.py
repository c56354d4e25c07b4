"""The search: rounds of sampling and shrinking, then finalists ranked on more dev batches."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from magicbert.config.sections import SearchSection
from magicbert.search.candidate import Candidate
from magicbert.search.evaluator import Evaluator
from magicbert.search.shrinking import Pair, shrink
from magicbert.space import Architecture, CostModel, Limits, SearchSpace
from magicbert.space.feasible import FeasiblePaths
from magicbert.space.randomness import keyed_generator
from magicbert.supernet.scoring import Score


@dataclass(frozen=True, slots=True)
class Round:
    """One round.

    Attributes:
        number: from 1; the finalists' round comes last.
        candidates: what this round asked for, best first; within the limits.
        num_batches: dev batches that scored them.
        space: what is left after the round.
        dropped: (layer, operator) pairs that it dropped, worst first.
    """

    number: int
    candidates: tuple[Candidate, ...]
    num_batches: int
    space: SearchSpace
    dropped: tuple[Pair, ...]


class ProgressiveSearch:
    """Progressive shrinking under limits; the same seed and scores give the same result.

    Args:
        space: the supernet's space.
        model: cost of its operators.
        limits: what every scored architecture keeps.
        section: sizes of rounds and finals.
        evaluate: scores a set of architectures.

    Raises:
        UserError: no architecture keeps the limits; names the nearest one.
    """

    def __init__(
        self,
        space: SearchSpace,
        model: CostModel,
        limits: Limits,
        section: SearchSection,
        evaluate: Evaluator,
    ) -> None:
        FeasiblePaths(space, model, limits).check()
        self.space = space
        self.model = model
        self.limits = limits
        self.section = section
        self.evaluate = evaluate
        self.rounds: list[Round] = []

    def run(self, on_round: Callable[[Round], None] = lambda _: None) -> list[Candidate]:
        """Runs all rounds and returns the best candidates, best first.

        Args:
            on_round: told of every finished round, the finals included.
        """
        space, is_complete = self.space, False
        for number in range(1, self.section.num_rounds + 1):
            latest, is_complete = self._shrinking_round(number, space)
            space = latest.space
            self.rounds.append(latest)
            on_round(latest)
            if is_complete:
                break
        finals = self._final_round(space, is_complete)
        self.rounds.append(finals)
        on_round(finals)
        return list(finals.candidates[: self.section.num_results])

    def scored(self) -> list[Candidate]:
        """Returns every architecture that was scored, once per number of dev batches."""
        first: dict[tuple[Architecture, int], Candidate] = {}
        for one in self.rounds:
            for candidate in one.candidates:
                first.setdefault((candidate.architecture, one.num_batches), candidate)
        return list(first.values())

    def _shrinking_round(self, number: int, space: SearchSpace) -> tuple[Round, bool]:
        """Samples, scores, shrinks. Scores of earlier rounds count while they fit the space.

        Returns:
            The round, and whether it scored all of the space within the limits: then there is
            nothing to shrink for.
        """
        section = self.section
        paths = FeasiblePaths(space, self.model, self.limits)
        drawn = paths.draw(
            section.samples_per_round, keyed_generator(section.seed, "search", number)
        )
        candidates = self._score(drawn, section.num_dev_batches, number)
        is_complete = paths.is_exact and len(drawn) == paths.count()
        dropped: tuple[Pair, ...] = ()
        if not is_complete:
            known = (*self.scored(), *candidates)
            losses = {c.architecture: c.loss for c in known if c.architecture in space}
            is_feasible = Feasibility(self.model, self.limits, losses)
            space, dropped = shrink(space, losses, section.drop_fraction, is_feasible)
        return Round(number, candidates, section.num_dev_batches, space, dropped), is_complete

    def _final_round(self, space: SearchSpace, is_complete: bool) -> Round:
        """Ranks finalists on more dev batches.

        They are the best that were scored, then new samples of the shrunk space; where nothing is
        left to sample, the best that were scored alone.
        """
        number, section = len(self.rounds) + 1, self.section
        ranking = sorted(self.scored(), key=lambda candidate: candidate.rank_key)
        best = [candidate.architecture for candidate in ranking]
        finalists = dict.fromkeys(best if is_complete else best[: section.num_results])
        if not is_complete:
            paths = FeasiblePaths(space, self.model, self.limits)
            generator = keyed_generator(section.seed, "search", number)
            finalists |= dict.fromkeys(paths.draw(section.num_finalists, generator))
        chosen = list(finalists)[: section.num_finalists]
        candidates = self._score(chosen, section.num_final_batches, number)
        return Round(number, candidates, section.num_final_batches, space, ())

    def _score(
        self, drawn: Iterable[Architecture], num_batches: int, number: int
    ) -> tuple[Candidate, ...]:
        scores: Mapping[Architecture, Score] = self.evaluate(list(drawn), num_batches)
        candidates = [
            Candidate(path, result.loss, result.accuracy, self.model.cost(path), number)
            for path, result in scores.items()
        ]
        return tuple(sorted(candidates, key=lambda candidate: candidate.rank_key))


class Feasibility:
    """Whether a space holds an architecture within the limits; a known one answers at once."""

    def __init__(self, model: CostModel, limits: Limits, known: Iterable[Architecture]) -> None:
        self.model = model
        self.limits = limits
        self.known = list(known)

    def __call__(self, space: SearchSpace) -> bool:
        """Returns whether the limits can be kept in ``space``."""
        if not self.limits or any(architecture in space for architecture in self.known):
            return True
        return FeasiblePaths(space, self.model, self.limits).count() > 0
