"""Progressive shrinking by operators: rounds of sampling and shrinking, then finalists."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from magicbert.config.sections import SearchSection
from magicbert.search.choices import Choices
from magicbert.search.judge import Judge
from magicbert.search.rounds import Round, best_of, final_round
from magicbert.search.shrinking import Pair, shrink
from magicbert.space import Architecture, SearchSpace
from magicbert.space.randomness import keyed_generator


@dataclass(frozen=True)
class ShrinkOperators:
    """PS-op of NAS-BERT (4.4.2): a round drops the operators whose holders were worst on average.

    Finalists are the best that were scored, then new samples of the shrunk space.

    Attributes:
        choices: what may be chosen.
        section: sizes of the rounds.
    """

    choices: Choices
    section: SearchSection

    def rounds(self, judge: Judge) -> Iterator[Round]:
        """Yields every round; a space that was scored whole is not shrunk."""
        done: list[Round] = []
        choices, is_complete = self.choices, False
        while len(done) < self.section.num_rounds and not is_complete:
            latest, is_complete = self._round(judge, choices, done)
            choices = choices.within(latest.space)
            done.append(latest)
            yield latest
        finalists = best_of(done)
        if not is_complete:
            number = len(done) + 1
            generator = keyed_generator(self.section.seed, "search", number)
            finalists = finalists[: self.section.num_results]
            finalists += choices.draw(self.section.num_finalists, generator)
        yield final_round(judge, finalists, self.section, len(done) + 1, choices.space)

    def _round(self, judge: Judge, choices: Choices, done: list[Round]) -> tuple[Round, bool]:
        """Samples, scores, shrinks. Scores of earlier rounds count while they fit the space.

        Returns:
            The round, and whether it scored all that there is: then nothing is to be shrunk.
        """
        section, number = self.section, len(done) + 1
        generator = keyed_generator(section.seed, "search", number)
        drawn = choices.draw(section.samples_per_round, generator)
        num_batches = judge.available(section.num_dev_batches)
        candidates = judge(drawn, num_batches, number)
        is_complete = choices.is_exact and len(drawn) == choices.count()
        space: SearchSpace = choices.space
        dropped: tuple[Pair, ...] = ()
        if not is_complete:
            known = [c for one in done for c in one.candidates]
            losses = {c.architecture: c.loss for c in (*known, *candidates)}
            space, dropped = self._shrink(choices, losses)
        return Round(number, candidates, num_batches, space, space.count(), dropped), is_complete

    def _shrink(
        self, choices: Choices, losses: dict[Architecture, float]
    ) -> tuple[SearchSpace, tuple[Pair, ...]]:
        inside = {path: loss for path, loss in losses.items() if path in choices.space}
        is_feasible = Feasibility(choices, inside)
        return shrink(choices.space, inside, self.section.drop_fraction, is_feasible)


class Feasibility:
    """Whether a space holds an architecture that may be chosen; a known one answers at once."""

    def __init__(self, choices: Choices, known: Iterable[Architecture]) -> None:
        self.choices = choices
        self.known = list(known)

    def __call__(self, space: SearchSpace) -> bool:
        """Returns whether anything may be chosen in ``space``."""
        if any(architecture in space for architecture in self.known):
            return True
        return self.choices.within(space).count() > 0
