"""Random search: the baseline that every strategy must beat at the same budget."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from magicbert.config.sections import SearchSection
from magicbert.search.choices import Choices
from magicbert.search.judge import Judge
from magicbert.search.rounds import Round, best_of, final_round
from magicbert.space.randomness import keyed_generator


@dataclass(frozen=True)
class RandomSearch:
    """Scores as many random architectures as the rounds of another strategy would.

    Attributes:
        choices: what may be chosen.
        section: sizes of the rounds.
    """

    choices: Choices
    section: SearchSection

    def rounds(self, judge: Judge) -> Iterator[Round]:
        """Yields one round per ``samples_per_round`` draws, then the finals of the best."""
        section, choices = self.section, self.choices
        generator = keyed_generator(section.seed, "random-search", 0)
        wanted = section.num_rounds * section.samples_per_round
        drawn = choices.draw(wanted, generator) if wanted else []
        num_batches = judge.available(section.num_dev_batches)
        done: list[Round] = []
        for first in range(0, len(drawn), section.samples_per_round):
            number = len(done) + 1
            part = drawn[first : first + section.samples_per_round]
            candidates = judge(part, num_batches, number)
            done.append(Round(number, candidates, num_batches, choices.space, choices.count()))
            yield done[-1]
        finalists = best_of(done) or choices.draw(section.num_finalists, generator)
        yield final_round(judge, finalists, section, len(done) + 1, choices.space)
