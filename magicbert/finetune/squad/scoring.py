"""Exact match and F1 as the official SQuAD scripts count them (Rajpurkar et al. 2016, 2018).

Scores lie in 0..1. The two scripts differ where it matters at the edges:

- A question without a prediction counts as 0 in version 1.1. In version 2.0 it is left out of the
  mean (and the script of 2.0 ends with an error when it reaches the split by answerability; here
  it is left out there, too).
- Two answers without any word left, such as "the" and "a", have an F1 of 0 in 1.1 and 1 in 2.0.
- Gold answers without any word left count in 1.1 and are ignored in 2.0; a question of 2.0
  without gold answers is answered right by the empty text alone.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from magicbert.finetune.squad.questions import Question

ARTICLES = re.compile(r"\b(a|an|the)\b")
WITHOUT_PUNCTUATION = str.maketrans("", "", string.punctuation)


@dataclass(frozen=True)
class AnswerScore:
    """What one prediction is worth."""

    exact: float
    f1: float


Scores = Mapping[str, AnswerScore]
"""Question id to score; in version 2.0 questions without a prediction are not in it."""


def normalize(text: str) -> str:
    """Returns a text in lower case without punctuation (ASCII), articles and extra white space."""
    bare = text.lower().translate(WITHOUT_PUNCTUATION)
    return " ".join(ARTICLES.sub(" ", bare).split())


def exact_match(prediction: str, gold: str) -> float:
    """Returns 1 if both texts are the same after normalisation."""
    return float(normalize(prediction) == normalize(gold))


def token_f1(prediction: str, gold: str, *, empty_matches_empty: bool) -> float:
    """Returns the harmonic mean of precision and recall over the words of a bag.

    Args:
        prediction: text given.
        gold: text wanted.
        empty_matches_empty: two texts without words agree (2.0), or do not (1.1).
    """
    given, wanted = normalize(prediction).split(), normalize(gold).split()
    if not given or not wanted:
        return float(empty_matches_empty and given == wanted)
    num_common = sum((Counter(given) & Counter(wanted)).values())
    if num_common == 0:
        return 0.0
    # In the order of the scripts, so that the last bit agrees as well.
    precision, recall = num_common / len(given), num_common / len(wanted)
    return (2 * precision * recall) / (precision + recall)


def score_answers(
    questions: Iterable[Question], predictions: Mapping[str, str], version: str
) -> dict[str, AnswerScore]:
    """Returns the score of each question, the best over its gold answers.

    Args:
        questions: with their gold answers.
        predictions: question id to text; the empty text says that there is no answer.
        version: ``1.1`` or ``2.0``.
    """
    scores = {}
    for question in questions:
        prediction = predictions.get(question.id)
        if prediction is not None:
            scores[question.id] = score_answer(prediction, gold_texts(question, version), version)
        elif version == "1.1":
            scores[question.id] = AnswerScore(0.0, 0.0)
    return scores


def score_answer(prediction: str, golds: Sequence[str], version: str) -> AnswerScore:
    """Returns the best exact match and the best F1 of one prediction."""
    is_v2 = version == "2.0"
    return AnswerScore(
        exact=max(exact_match(prediction, gold) for gold in golds),
        f1=max(token_f1(prediction, gold, empty_matches_empty=is_v2) for gold in golds),
    )


def gold_texts(question: Question, version: str) -> list[str]:
    """Returns the texts that a prediction is compared with."""
    texts = [answer.text for answer in question.answers]
    if version == "2.0":
        texts = [text for text in texts if normalize(text)] or [""]
    return texts


def mean_scores(questions: Sequence[Question], scores: Scores, version: str) -> dict[str, float]:
    """Returns exact match and F1 over all questions; in 2.0 also of those with and without answer.

    A split without questions has no figures.
    """
    means = mean_of(scores.values())
    if version == "2.0":
        for prefix, wanted in (("has_answer_", True), ("no_answer_", False)):
            part = [
                scores[question.id]
                for question in questions
                if question.has_answer == wanted and question.id in scores
            ]
            if part:
                means |= {prefix + name: value for name, value in mean_of(part).items()}
    return means


def mean_of(scores: Iterable[AnswerScore]) -> dict[str, float]:
    """Returns the means; 0 without any score."""
    values = list(scores)
    count = max(len(values), 1)
    return {
        "exact": sum(score.exact for score in values) / count,
        "f1": sum(score.f1 for score in values) / count,
    }
