"""Turns architectures into scored candidates: remembers every score, shares work over ranks."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence

from magicbert.errors import UserError
from magicbert.records import digest_of
from magicbert.search.candidate import Candidate
from magicbert.search.choices import Choices
from magicbert.search.evaluator import Evaluator
from magicbert.search.score_file import ScoreFile
from magicbert.space import Architecture
from magicbert.supernet.prefixes import rank_shares
from magicbert.supernet.scoring import Score
from magicbert.training.ranks import Ranks
from magicbert.training.watching.heartbeat import PULSE


class Judge:
    """No architecture is ever scored twice on the same batch, on whichever rank.

    All ranks ask the same questions in the same order and get the same answers, so each of them
    walks through the whole search and they decide alike without a word.

    Args:
        choices: knows the costs.
        evaluate: scores a set of architectures.
        scores: what is known from before; new scores are added to it.
        ranks: the ranks to share with; ``None`` = this process alone.
    """

    def __init__(
        self,
        choices: Choices,
        evaluate: Evaluator,
        scores: ScoreFile | None = None,
        ranks: Ranks | None = None,
    ) -> None:
        self.choices = choices
        self.evaluate = evaluate
        self.scores = scores if scores is not None else ScoreFile()
        self.ranks = ranks

    def __call__(
        self, architectures: Collection[Architecture], num_batches: int, number: int
    ) -> tuple[Candidate, ...]:
        """Returns the candidates, best first, scored on the first ``num_batches`` dev batches.

        Args:
            architectures: what to score.
            num_batches: fewer are taken where there are no more.
            number: of the round, from 1.

        Raises:
            UserError: a loss is not finite.
        """
        judged = [
            self.candidate(architecture, scores, number)
            for architecture, scores in self.batch_scores(architectures, num_batches).items()
        ]
        return tuple(sorted(judged, key=lambda candidate: candidate.rank_key))

    def candidate(
        self, architecture: Architecture, scores: Iterable[Score], number: int
    ) -> Candidate:
        """Returns an architecture with what it scored over several batches."""
        listed = tuple(scores)
        total = sum(listed, start=Score(0.0, 0, 0))
        cost = self.choices.cost(architecture)
        return Candidate(architecture, total.loss, total.accuracy, cost, number, len(listed))

    def available(self, num_batches: int) -> int:
        """Returns how many of so many batches there are."""
        return min(num_batches, self.evaluate.num_batches)

    def batch_scores(
        self, architectures: Collection[Architecture], num_batches: int
    ) -> dict[Architecture, tuple[Score, ...]]:
        """Returns the score of each architecture on each of the first batches.

        Raises:
            UserError: a loss is not finite.
        """
        wanted = self.available(num_batches)
        if self.ranks is not None:
            names = [str(architecture) for architecture in architectures]
            self.ranks.exchange("scores", facts={"of": digest_of([names, wanted])})
        missing: dict[int, list[Architecture]] = {}
        for architecture in dict.fromkeys(architectures):
            num_known = len(self.scores.known(architecture))
            if num_known < wanted:
                missing.setdefault(num_known, []).append(architecture)
        # The most known first: scores keep their order in the file when a stopped search goes on.
        for first in sorted(missing, reverse=True):
            self._score(missing[first], range(first, wanted))
        return {a: self.scores.known(a)[:wanted] for a in architectures}

    def _score(self, architectures: Sequence[Architecture], batches: range) -> None:
        """Scores this rank's share and exchanges it for the others' shares."""
        if self.ranks is None:
            self._score_here(architectures, batches)
            return
        mine = rank_shares(architectures, self.ranks.num_ranks)[self.ranks.rank]
        problem = None
        try:
            self._score_here(mine, batches)
        except UserError as error:
            problem = str(error)
        self.ranks.raise_together(problem)
        for part in self.ranks.gather([(a, self.scores.known(a)) for a in mine]):
            self.scores.merge(part)

    def _score_here(self, architectures: Sequence[Architecture], batches: range) -> None:
        PULSE.enter("evaluate")
        for architecture, scores in self.evaluate(architectures, batches):
            check_finite(architecture, scores)
            self.scores.add(architecture, scores)
            PULSE.enter("evaluate")


def check_finite(architecture: Architecture, scores: Iterable[Score]) -> None:
    """Raises `UserError` if a loss is not finite."""
    for score in scores:
        if not math.isfinite(score.loss):
            raise UserError(
                f"the loss of {architecture} is {score.loss}: the supernet's training diverged, "
                "its weights are damaged, or the scorer is wrong"
            )
