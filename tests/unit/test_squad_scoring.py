"""Exact match, F1 and the threshold, on cases worked out by hand from the official scripts."""

from __future__ import annotations

import math
import string

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from magicbert.finetune.squad.questions import Answer, Question
from magicbert.finetune.squad.scoring import (
    mean_scores,
    normalize,
    score_answers,
    token_f1,
)
from magicbert.finetune.squad.threshold import apply_threshold, best_threshold

WORDS = st.text(alphabet="abthe .,'-The\u00e9\u3000", max_size=24)


def ask(name: str, *golds: str) -> Question:
    return Question(name, "article", "context", "what?", tuple(Answer(text, 0) for text in golds))


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("The  Cat, a dog!", "cat dog"),
        ("An-other", "another"),
        ("theatre", "theatre"),
        ("U.S.A.", "usa"),
        ("a.b", "ab"),
        ("the", ""),
        ("  ", ""),
        ("\u201cquoted\u201d", "\u201cquoted\u201d"),  # only ASCII punctuation goes
        ("CAF\u00c9\u00a0a la carte", "caf\u00e9 la carte"),
        ("$5,000.50", "500050"),
        ("a\tthe\nan", ""),
    ],
)
def test_normalisation(text: str, normal: str) -> None:
    assert normalize(text) == normal


@given(WORDS)
@settings(max_examples=60, deadline=None)
def test_normalisation_leaves_nothing_to_normalise_but_articles(text: str) -> None:
    normal = normalize(text)
    assert normal == " ".join(normal.split()) == normal.lower()
    assert not set(normal) & set(string.punctuation)
    assert not {"a", "an", "the"} & set(normal.split())


def test_f1_counts_words_of_a_bag() -> None:
    # 2 common words of 3 given and 4 wanted: precision 2/3, recall 1/2.
    assert token_f1("x x y", "x y z w", empty_matches_empty=False) == pytest.approx(4 / 7)
    assert token_f1("y x", "x y", empty_matches_empty=False) == 1.0
    assert token_f1("x", "y", empty_matches_empty=True) == 0.0


@given(WORDS, WORDS)
@settings(max_examples=60, deadline=None)
def test_f1_is_symmetric_and_bounds_exact_match(one: str, other: str) -> None:
    score = token_f1(one, other, empty_matches_empty=True)
    assert score == pytest.approx(token_f1(other, one, empty_matches_empty=True))
    assert 0.0 <= score <= 1.0
    assert score == 1.0 or normalize(one) != normalize(other)
    assert token_f1(one, one, empty_matches_empty=True) == 1.0


def test_the_best_gold_answer_counts_for_each_metric_alone() -> None:
    questions = [ask("q", "red house", "big red house now")]
    (score,) = score_answers(questions, {"q": "the red house"}, "1.1").values()
    assert (score.exact, score.f1) == (1.0, 1.0)
    (score,) = score_answers(questions, {"q": "big red house"}, "1.1").values()
    assert (score.exact, score.f1) == (0.0, pytest.approx(6 / 7))


def test_a_missing_prediction_is_zero_in_one_version_and_left_out_in_the_other() -> None:
    questions = [ask("a", "x"), ask("b", "y"), ask("c")]
    predictions = {"a": "x", "c": "wrong"}
    v1 = score_answers(questions[:2], predictions, "1.1")
    assert mean_scores(questions[:2], v1, "1.1") == {"exact": 0.5, "f1": 0.5}
    v2 = score_answers(questions, predictions, "2.0")
    assert set(v2) == {"a", "c"}
    assert mean_scores(questions, v2, "2.0") == {
        "exact": 0.5, "f1": 0.5, "has_answer_exact": 1.0, "has_answer_f1": 1.0,
        "no_answer_exact": 0.0, "no_answer_f1": 0.0,
    }  # fmt: skip


def test_the_empty_answer_is_right_where_there_is_none() -> None:
    questions = [ask("a", "x"), ask("b")]
    scores = score_answers(questions, {"a": "", "b": ""}, "2.0")
    assert {name: score.f1 for name, score in scores.items()} == {"a": 0.0, "b": 1.0}
    assert score_answers(questions[1:], {"b": "the"}, "2.0")["b"].exact == 1.0


def test_texts_without_words_agree_in_one_version_and_not_in_the_other() -> None:
    (v1,) = score_answers([ask("q", "the")], {"q": "a"}, "1.1").values()
    assert (v1.exact, v1.f1) == (1.0, 0.0)
    # In 2.0 a gold answer without words is no answer at all.
    (v2,) = score_answers([ask("q", "the", "x")], {"q": "a"}, "2.0").values()
    assert (v2.exact, v2.f1) == (0.0, 0.0)
    (v2,) = score_answers([ask("q", "the")], {"q": ""}, "2.0").values()
    assert (v2.exact, v2.f1) == (1.0, 1.0)


def test_splits_without_questions_have_no_figures() -> None:
    questions = [ask("a", "x")]
    scores = score_answers(questions, {"a": "x"}, "2.0")
    assert set(mean_scores(questions, scores, "2.0")) == {
        "exact", "f1", "has_answer_exact", "has_answer_f1",
    }  # fmt: skip
    assert mean_scores([], {}, "1.1") == {"exact": 0.0, "f1": 0.0}


def test_the_threshold_between_right_answers_and_unanswerable_questions_is_found() -> None:
    questions = [ask("a", "x"), ask("b", "y"), ask("c"), ask("d", "z")]
    answers = {"a": "x", "b": "y", "c": "w", "d": "wrong"}
    odds = {"a": -3.0, "b": 1.0, "c": 2.0, "d": 5.0}
    scores = score_answers(questions, answers, "2.0")
    best = best_threshold(questions, answers, scores, odds, "exact")
    assert (best.value, best.score) == (1.0, 0.75)
    assert apply_threshold(answers, odds, best.value) == {"a": "x", "b": "y", "c": "", "d": ""}


def test_no_answer_everywhere_has_a_threshold_that_gives_it() -> None:
    questions = [ask("a"), ask("b")]
    answers, odds = {"a": "x", "b": "y"}, {"a": -3.0, "b": -1.0}
    scores = score_answers(questions, answers, "2.0")
    best = best_threshold(questions, answers, scores, odds, "f1")
    assert best.score == 1.0
    assert best.value < -3.0
    assert set(apply_threshold(answers, odds, best.value).values()) == {""}


def test_without_questions_any_threshold_will_do() -> None:
    assert best_threshold([], {}, {}, {}, "f1").score == 0.0


@given(
    st.lists(
        st.tuples(st.sampled_from(["x", "y z", None]), st.sampled_from(["x", "y", "y z", ""]),
                  st.integers(-3, 3)),
        min_size=1, max_size=12,
    )
)  # fmt: skip
@settings(max_examples=100, deadline=None)
def test_the_best_threshold_is_the_best_of_all_and_gives_its_score(
    rows: list[tuple[str | None, str, int]],
) -> None:
    questions = [ask(str(row), *([gold] if gold else [])) for row, (gold, _, _) in enumerate(rows)]
    answers = {str(row): text for row, (_, text, _) in enumerate(rows)}
    odds = {str(row): float(value) for row, (_, _, value) in enumerate(rows)}
    raw = score_answers(questions, answers, "2.0")
    for metric in ("exact", "f1"):
        best = best_threshold(questions, answers, raw, odds, metric)
        reached = {}
        for threshold in (best.value, -math.inf, *range(-4, 4)):
            final = apply_threshold(answers, odds, threshold)
            scores = score_answers(questions, final, "2.0")
            reached[threshold] = mean_scores(questions, scores, "2.0")[metric]
        assert reached[best.value] == pytest.approx(best.score)
        assert best.score == pytest.approx(max(reached.values()))
