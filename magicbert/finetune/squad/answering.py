"""From the logits of windows to answers, their metrics and the files of the official scripts."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from magicbert.bert.modeling.answer_spans import Span, Window, best_spans, null_span
from magicbert.config.sections import SquadSection
from magicbert.finetune.evaluation import Evaluation
from magicbert.finetune.squad.questions import Question
from magicbert.finetune.squad.scoring import mean_scores, score_answers
from magicbert.finetune.squad.task import SquadTask
from magicbert.finetune.squad.threshold import apply_threshold, best_threshold

PREDICTIONS = "predictions.json"
NULL_ODDS = "null_odds.json"
NBEST = "nbest_predictions.json"


@dataclass(frozen=True)
class Answered:
    """What the model says to one question.

    Attributes:
        spans: answers, best first; none if no token of the context was read.
        null: "no answer".
        is_finite: the logits are numbers.
    """

    spans: tuple[Span, ...]
    null: Span
    is_finite: bool

    @property
    def text(self) -> str:
        """Returns the best answer that has words; empty if there is none."""
        return self.spans[0].text if self.spans and self.is_finite else ""

    @property
    def null_odds(self) -> float:
        """Returns the score of "no answer" less that of the best answer."""
        if not self.spans or not self.is_finite:
            return 0.0
        return self.null.score - self.spans[0].score


Answers = Mapping[str, Answered]


def answer_questions(
    questions: Sequence[Question],
    windows: Sequence[Sequence[Window]],
    logits: Sequence[tuple[Tensor, Tensor]],
    settings: SquadSection,
) -> dict[str, Answered]:
    """Returns the answers by question id.

    Args:
        questions: what was asked.
        windows: of each question.
        logits: start and end logits ``[S]`` of all windows in this order.
        settings: how many answers, and how long ones.
    """
    answered = {}
    first = 0
    for question, own in zip(questions, windows, strict=True):
        behind = first + len(own)
        answered[question.id] = answer_question(question, own, logits[first:behind], settings)
        first = behind
    return answered


def answer_question(
    question: Question,
    windows: Sequence[Window],
    logits: Sequence[tuple[Tensor, Tensor]],
    settings: SquadSection,
) -> Answered:
    """Returns the answers to one question."""
    is_finite = all(bool(ends.isfinite().all()) for pair in logits for ends in pair)
    spans = best_spans(
        windows, question.context, logits,
        num_best=settings.num_best, max_answer_tokens=settings.max_answer_tokens,
    )  # fmt: skip
    return Answered(tuple(spans), null_span(windows, logits), is_finite)


def evaluate_answers(
    task: SquadTask, questions: Sequence[Question], answered: Answers
) -> Evaluation:
    """Returns scores and prediction files; of a model that diverged, scores of 0.

    In version 2.0 the answers of ``predictions.json`` are those under the threshold with the best
    F1 on these very questions, as it is reported for SQuAD 2.0; the threshold is in the row.
    """
    texts = {name: answer.text for name, answer in answered.items()}
    odds = {name: answer.null_odds for name, answer in answered.items()}
    details: dict[str, float] = {}
    best_exact: dict[str, float] = {}
    if task.has_unanswerable:
        raw = score_answers(questions, texts, task.version)
        threshold = best_threshold(questions, texts, raw, odds, "f1").value
        best_exact["best_exact"] = best_threshold(questions, texts, raw, odds, "exact").score
        texts = apply_threshold(texts, odds, threshold)
        details["null_threshold"] = threshold
    scores = score_answers(questions, texts, task.version)
    metrics = mean_scores(questions, scores, task.version) | best_exact
    diverged = not all(answer.is_finite for answer in answered.values())
    if diverged:
        metrics = dict.fromkeys(metrics, 0.0)
    return Evaluation(metrics, prediction_files(task, texts, odds, answered), diverged, details)


def file_names(task: SquadTask) -> list[str]:
    """Returns the names of the prediction files, below the folder of predictions."""
    names = (PREDICTIONS, NBEST, *((NULL_ODDS,) if task.has_unanswerable else ()))
    return [f"{task.name}/{name}" for name in names]


def prediction_files(
    task: SquadTask,
    texts: Mapping[str, str],
    odds: Mapping[str, float],
    answered: Answers,
) -> dict[str, str]:
    """Returns the texts of the prediction files by name; plain ASCII, which any locale reads."""
    ranked = {name: ranked_answers(task, answer) for name, answer in answered.items()}
    trees: dict[str, Any] = {PREDICTIONS: texts, NBEST: ranked, NULL_ODDS: odds}
    return {
        name: json.dumps(trees[name.rpartition("/")[2]], indent=1) + "\n"
        for name in file_names(task)
    }


def ranked_answers(task: SquadTask, answer: Answered) -> list[dict[str, Any]]:
    """Returns the best answers with their probabilities among each other.

    "No answer" is one of them in version 2.0. A model that diverged has none.
    """
    if not answer.is_finite:
        return []
    spans = [*answer.spans, *((answer.null,) if task.has_unanswerable else ())]
    spans.sort(key=lambda span: -span.score)
    weights = [math.exp(span.score - spans[0].score) for span in spans]
    return [
        {
            "text": span.text,
            "probability": weight / sum(weights),
            "start_logit": span.start_logit,
            "end_logit": span.end_logit,
        }
        for span, weight in zip(spans, weights, strict=True)
    ]
