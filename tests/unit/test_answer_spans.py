"""Windows and spans: characters become tokens and come back, at borders and in any script."""

from __future__ import annotations

import itertools
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_bert import save_tokenizer
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from magicbert.bert.modeling.answer_spans import (
    Window,
    WindowShape,
    answer_tokens,
    best_spans,
    check_room,
    cut_windows,
    null_span,
)
from magicbert.finetune.squad.scoring import normalize
from magicbert.finetune.squad.squad_file import read_squad_file
from magicbert.finetune.squad.task import SQUAD

REAL = Path(os.environ.get("MAGICBERT_DATA", "")) / "squad" / "train-v1.1.json.gz"
CONTEXT = (
    "  In 1889, Zo\u00eb paid \u00a35,000\u2014twice!\n\n "
    "The caf\u00e9 \U0001f600 (\u6771\u4eac)\ttook \u0130t.  "
)
ANSWERS = (
    "1889", "Zo\u00eb", "\u00a35,000", "twice", "caf\u00e9 \U0001f600", "\u6771\u4eac", "\u6771",
    "took", "\u0130t",
)  # fmt: skip


@pytest.fixture(scope="module")
def word_pieces(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("tokenizer")
    characters = "abcdefghijklmnopqrstuvwxyz0123456789,.!?()\u00a3\u2014\u6771\u4eac"
    special = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
    pieces = [*special, "the", "paid", "##ice", *characters, *(f"##{c}" for c in characters)]
    save_tokenizer(folder, pieces)
    return AutoTokenizer.from_pretrained(folder)


@pytest.fixture(scope="module")
def bytes_tokenizer() -> Any:
    """Returns a byte-level tokenizer: one character may be several tokens, and spaces belong in."""
    tokenizer = Tokenizer(models.BPE(unk_token=None))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<s>", "<pad>", "</s>"]
    trainer = trainers.BpeTrainer(
        vocab_size=280, special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )  # fmt: skip
    tokenizer.train_from_iterator(["the paid took twice"], trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>",
        special_tokens=[("<s>", 0), ("</s>", 2)],
    )  # fmt: skip
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", cls_token="<s>", sep_token="</s>"
    )


@pytest.fixture(params=["word_pieces", "bytes_tokenizer"])
def tokenizer(request: pytest.FixtureRequest) -> Any:
    return request.getfixturevalue(request.param)


def gold_logits(window: Window, place: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor]:
    starts, ends = torch.zeros(len(window.input_ids)), torch.zeros(len(window.input_ids))
    starts[place[0]] = ends[place[1]] = 9.0
    return starts, ends


def windows_of(tokenizer: Any, context: str, shape: WindowShape) -> list[Window]:
    (windows,) = cut_windows(tokenizer, ["who paid?"], [context], shape)
    return windows


@pytest.mark.parametrize("answer", ANSWERS)
def test_answers_come_back_as_the_context_spells_them(tokenizer: Any, answer: str) -> None:
    start = CONTEXT.index(answer)
    (window,) = windows_of(tokenizer, CONTEXT, WindowShape(200, 8, 20))
    place = answer_tokens(window, start, start + len(answer))
    assert place is not None
    (best, *_) = best_spans(
        [window], CONTEXT, [gold_logits(window, place)], num_best=3, max_answer_tokens=30
    )
    assert answer in best.text
    assert CONTEXT[best.start : best.end] == best.text == best.text.strip()
    # Wider than asked for only where a token is: an unknown word is one token.
    assert len(best.text.split()) == len(answer.split())


@pytest.mark.parametrize("overlap", [0, 3, 8])
def test_windows_cover_the_context_in_order_and_overlap(tokenizer: Any, overlap: int) -> None:
    context = " ".join(f"word{number}" for number in range(40))
    shape = WindowShape(40, overlap, 12)
    windows = windows_of(tokenizer, context, shape)
    assert len(windows) > 3
    assert max(len(window.input_ids) for window in windows) == 40
    whole = windows_of(tokenizer, context, WindowShape(5000, 0, 12))[0].offsets
    position = 0
    for window in windows:
        size = len(window.offsets)
        assert torch.equal(window.offsets, whole[position : position + size])
        assert window.input_ids[window.null] == tokenizer.cls_token_id
        position += size - overlap
    assert position + overlap == len(whole)


def test_an_answer_across_the_border_is_in_no_window_that_cuts_it(word_pieces: Any) -> None:
    context = " ".join("abcdefghijklmnopqrstuvwxyz")
    windows = windows_of(word_pieces, context, WindowShape(16, 2, 4))
    first = windows[0]
    border = int(first.offsets[-1, 1])
    answer = context[border - 1 : border + 4]  # last letter of the window, and two more
    places = [answer_tokens(window, border - 1, border + 4) for window in windows]
    assert places[0] is None
    found = [(window, place) for window, place in zip(windows, places, strict=True) if place]
    assert found
    for window, (start, end) in found:
        left = window.offsets[start - window.first, 0]
        right = window.offsets[end - window.first, 1]
        assert context[left:right] == answer
    # A longer answer than the overlap holds may be whole in none of them.
    whole = [answer_tokens(window, 0, len(context)) for window in windows]
    assert whole == [None] * len(windows)


def test_the_best_spans_are_those_of_all_pairs(word_pieces: Any) -> None:
    context = " ".join("abcdefghijklmnopqrstuvwxyz")
    windows = windows_of(word_pieces, context, WindowShape(18, 4, 4))
    generator = torch.Generator().manual_seed(0)
    logits = [
        tuple(torch.randn(len(window.input_ids) + 3, generator=generator) for _ in range(2))
        for window in windows
    ]
    expected: dict[str, float] = {}
    for window, (starts, ends) in zip(windows, logits, strict=True):
        inside = range(len(window.offsets))
        for first, last in itertools.product(inside, inside):
            if first <= last < first + 3:
                text = context[window.offsets[first, 0] : window.offsets[last, 1]]
                score = float(starts[window.first + first]) + float(ends[window.first + last])
                expected[text] = max(expected.get(text, score), score)
    ranked = sorted(expected, key=lambda text: -expected[text])[:5]
    spans = best_spans(windows, context, logits, num_best=5, max_answer_tokens=3)
    assert [span.text for span in spans] == ranked
    assert [span.score for span in spans] == pytest.approx([expected[text] for text in ranked])


def test_no_answer_is_judged_by_the_window_that_believes_in_it_least(word_pieces: Any) -> None:
    windows = windows_of(word_pieces, " ".join("abcdefghijklmnopqr"), WindowShape(16, 2, 4))
    logits = []
    for number, window in enumerate(windows):
        starts = torch.full((len(window.input_ids),), 7.0)
        starts[window.null] = -float(number)
        logits.append((starts, torch.zeros_like(starts)))
    assert null_span(windows, logits).score == -float(len(windows) - 1)
    assert null_span(windows, logits).text == ""


def test_a_context_without_tokens_has_no_spans(word_pieces: Any) -> None:
    (windows,) = cut_windows(word_pieces, ["who?"], ["\u200b\u200b"], WindowShape(32, 4, 8))
    logits = [(torch.zeros(len(row.input_ids)), torch.zeros(len(row.input_ids))) for row in windows]
    assert best_spans(windows, "\u200b\u200b", logits, num_best=3, max_answer_tokens=3) == []
    assert answer_tokens(windows[0], 0, 1) is None


def test_long_questions_are_cut_and_the_context_keeps_its_room(tokenizer: Any) -> None:
    question = "why " * 50 + "caf\u00e9?"
    (windows,) = cut_windows(tokenizer, [question], ["the cat paid"], WindowShape(64, 4, 10))
    special = tokenizer.num_special_tokens_to_add(pair=True)
    for window in windows:
        assert 0 < len(window.input_ids) - len(window.offsets) - special <= 10
    assert int(windows[-1].offsets[-1, 1]) == len("the cat paid")


def test_windows_that_would_not_move_on_are_refused(word_pieces: Any) -> None:
    check_room(word_pieces, WindowShape(20, 8, 8))
    with pytest.raises(ValueError, match="leave 8 for the context, which must be more than the 8"):
        check_room(word_pieces, WindowShape(19, 8, 8))


@pytest.mark.skipif(not REAL.is_file(), reason="needs MAGICBERT_DATA with squad/")
def test_real_answers_survive_the_way_to_tokens_and_back() -> None:
    vocabulary = REAL.parents[1] / "vocab" / "bert-base-uncased-vocab.txt"
    from transformers import BertTokenizerFast

    tokenizer = BertTokenizerFast(vocab=str(vocabulary))
    questions = read_squad_file(REAL, SQUAD).rows[::40]
    lost, changed = [], []
    windows = cut_windows(
        tokenizer, [row.text for row in questions], [row.context for row in questions],
        WindowShape(192, 64, 32),
    )  # fmt: skip
    for question, own in zip(questions, windows, strict=True):
        answer = question.answers[0]
        end = answer.start + len(answer.text)
        places = [answer_tokens(window, answer.start, end) for window in own]
        if not any(places):
            lost.append(question.id)
        for window, place in zip(own, places, strict=True):
            if place is None:
                continue
            (span, *_) = best_spans(
                [window], question.context, [gold_logits(window, place)],
                num_best=1, max_answer_tokens=60,
            )  # fmt: skip
            # An answer that begins or ends inside a word, such as "120" of "120m", may be widened.
            around = question.context[max(0, answer.start - 1) : answer.start]
            around += question.context[end : end + 1]
            if normalize(span.text) != normalize(answer.text) and not (
                answer.text in span.text and any(map(str.isalnum, around))
            ):
                changed.append((answer.text, span.text))
    assert len(questions) > 250
    assert (lost, changed) == ([], [])
