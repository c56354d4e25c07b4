"""Successive halving over dev batches: what cannot win is not scored on more of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from magicbert.config.sections import SearchSection
from magicbert.search.candidate import Candidate
from magicbert.search.choices import Choices
from magicbert.search.confidence import cannot_win, error_rate_of_test
from magicbert.search.judge import Judge
from magicbert.search.rounds import Round
from magicbert.space.randomness import keyed_generator


@dataclass(frozen=True)
class Halving:
    """Scores many random architectures on few batches, and fewer and fewer of them on more.

    The number of batches doubles from ``num_dev_batches`` to ``num_final_batches``. After each
    round those leave that cannot win at ``confidence`` (see `magicbert.search.confidence`); with
    a confidence of 0, the worse half leaves and nothing is promised.

    Attributes:
        choices: what may be chosen.
        section: sizes and confidence.
    """

    choices: Choices
    section: SearchSection

    def rounds(self, judge: Judge) -> Iterator[Round]:
        """Yields one round per number of batches; the last one ranks those that were left."""
        section = self.section
        generator = keyed_generator(section.seed, "halving", 0)
        wanted = max(section.num_rounds, 1) * section.samples_per_round
        left = self.choices.draw(wanted, generator)
        ladder = rungs(
            judge.available(section.num_dev_batches), judge.available(section.num_final_batches)
        )
        error_rate = error_rate_of_test(section.confidence, len(left), len(ladder) - 1)
        for number, num_batches in enumerate(ladder, start=1):
            candidates = judge(left, num_batches, number)
            if number < len(ladder):
                left = [c.architecture for c in self._kept(judge, candidates, error_rate)]
            space = self.choices.space
            yield Round(number, candidates, num_batches, space, len(left))

    def _kept(
        self, judge: Judge, candidates: Sequence[Candidate], error_rate: float
    ) -> Sequence[Candidate]:
        """Returns the candidates, best first, that the next round scores on more batches."""
        if not self.section.confidence:
            return candidates[: (len(candidates) + 1) // 2]
        paths = [candidate.architecture for candidate in candidates]
        scores = judge.batch_scores(paths, candidates[0].num_batches)
        sums = np.array([[score.loss_sum for score in scores[path]] for path in paths])
        is_out = cannot_win(sums, error_rate)
        return [c for c, is_worse in zip(candidates, is_out, strict=True) if not is_worse]


def rungs(first: int, last: int) -> list[int]:
    """Returns the numbers of batches: doubling from the first to the last."""
    found = [min(first, last)]
    while found[-1] < last:
        found.append(min(2 * found[-1], last))
    return found
