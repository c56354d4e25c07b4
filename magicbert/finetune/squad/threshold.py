"""When to say that a question has no answer: the threshold on the null odds, chosen on dev."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Literal

from magicbert.finetune.squad.questions import Question
from magicbert.finetune.squad.scoring import Scores


@dataclass(frozen=True)
class Threshold:
    """A threshold and what it gives.

    Attributes:
        value: a question whose null odds are above it gets the empty answer.
        score: mean over the scored questions, 0..1.
    """

    value: float
    score: float


def apply_threshold(
    answers: Mapping[str, str], null_odds: Mapping[str, float], threshold: float
) -> dict[str, str]:
    """Returns the answers, empty where the null odds are above the threshold."""
    return {
        question: "" if null_odds[question] > threshold else text
        for question, text in answers.items()
    }


def best_threshold(
    questions: Sequence[Question],
    answers: Mapping[str, str],
    scores: Scores,
    null_odds: Mapping[str, float],
    metric: Literal["exact", "f1"],
) -> Threshold:
    """Returns the threshold with the best mean score; of several the lowest.

    It is the search of the official script: from "no answer" everywhere, questions are answered in
    the order of their null odds; any text counts as wrong where there is no answer, also "the",
    which normalisation takes for empty. Two things differ, so that the threshold gives the score:
    questions of equal odds are answered together, and where "no answer" everywhere is best the
    threshold lies below all odds, not at 0.

    Args:
        questions: all of them; those without a score are left out.
        answers: what is answered below the threshold.
        scores: of these answers.
        null_odds: score of "no answer" less that of the answer.
        metric: what is maximised.
    """
    asked = {question.id: question for question in questions if question.id in scores}
    ranked = sorted(asked, key=lambda name: null_odds[name])
    total = best = float(sum(not question.has_answer for question in asked.values()))
    value = math.nextafter(null_odds[ranked[0]], -math.inf) if ranked else 0.0
    for odds, group in groupby(ranked, key=lambda name: null_odds[name]):
        for name in group:
            if asked[name].has_answer:
                total += getattr(scores[name], metric)
            elif answers[name]:
                total -= 1
        if total > best:
            best, value = total, odds
    return Threshold(value, best / max(len(asked), 1))
