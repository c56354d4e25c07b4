"""Windows over a long context, and the best answers that the logits of these windows name.

Shape suffixes: S tokens of a window, C tokens of the context in it, A tokens of the longest answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class WindowShape:
    """How questions and contexts become rows of tokens.

    Attributes:
        length: tokens of a row at most, special ones included.
        overlap: tokens of the context that neighbouring windows share.
        question_length: tokens of a question at most; the rest is cut off.
    """

    length: int
    overlap: int
    question_length: int


@dataclass(frozen=True)
class Window:
    """A question and one part of its context as a row of tokens.

    Attributes:
        input_ids: the row ``[S]`` (int32), without padding.
        token_type_ids: of the row ``[S]`` (int32); ``None`` if the model reads none.
        first: position of the first token of the context.
        offsets: first character, and character behind the last, of each token of the context,
            ``[C, 2]`` (int32).
        null: position of the token that stands for "no answer", the classification token.
    """

    input_ids: Tensor
    token_type_ids: Tensor | None
    first: int
    offsets: Tensor
    null: int


@dataclass(frozen=True)
class Span:
    """One answer.

    Attributes:
        text: as the context spells it, without white space around it.
        start: its first character.
        end: the character behind it.
        start_logit: of its first token.
        end_logit: of its last token.
    """

    text: str
    start: int
    end: int
    start_logit: float
    end_logit: float

    @property
    def score(self) -> float:
        """Returns what answers are ranked by."""
        return self.start_logit + self.end_logit


def cut_windows(
    tokenizer: Any, questions: Sequence[str], contexts: Sequence[str], shape: WindowShape
) -> list[list[Window]]:
    """Returns the windows of each question, first part of the context first.

    Args:
        tokenizer: a fast one, which knows the characters of each token.
        questions: one text each.
        contexts: the text that the answer stands in, one per question.
        shape: of the windows; see `check_room`.
    """
    encoding = tokenizer(
        shorten(tokenizer, questions, shape.question_length),
        list(contexts),
        truncation="only_second",
        max_length=shape.length,
        stride=shape.overlap,
        return_overflowing_tokens=True,
        return_offsets_mapping=True,
        return_attention_mask=False,
    )
    windows: list[list[Window]] = [[] for _ in questions]
    for row, question in enumerate(encoding["overflow_to_sample_mapping"]):
        windows[question].append(window_of(tokenizer, encoding, row))
    return windows


def window_of(tokenizer: Any, encoding: Any, row: int) -> Window:
    """Returns one row of the tokenizer's output."""
    ids = encoding["input_ids"][row]
    sides = encoding.sequence_ids(row)
    inside = [position for position, side in enumerate(sides) if side == 1]
    offsets = encoding["offset_mapping"][row]
    types = encoding["token_type_ids"][row] if "token_type_ids" in encoding else None
    null = tokenizer.cls_token_id
    return Window(
        input_ids=torch.tensor(ids, dtype=torch.int32),
        token_type_ids=None if types is None else torch.tensor(types, dtype=torch.int32),
        first=inside[0] if inside else len(ids),
        offsets=torch.tensor([offsets[position] for position in inside], dtype=torch.int32).reshape(
            -1, 2
        ),
        null=ids.index(null) if null in ids else 0,
    )


def check_room(tokenizer: Any, shape: WindowShape) -> None:
    """Raises ``ValueError`` if the windows would not move on through a context."""
    special = tokenizer.num_special_tokens_to_add(pair=True)
    room = shape.length - special - shape.question_length
    if room <= shape.overlap:
        raise ValueError(
            f"windows of {shape.length} tokens with a question of up to {shape.question_length} "
            f"and {special} special tokens leave {room} for the context, which must be more than "
            f"the {shape.overlap} that windows share"
        )


def shorten(tokenizer: Any, questions: Sequence[str], limit: int) -> list[str]:
    """Returns the questions, each cut behind its last token that is allowed."""
    texts = [question.strip() for question in questions]
    offsets = token_offsets(tokenizer, texts)
    return [
        text if len(tokens) <= limit else cut_text(tokenizer, text, tokens, limit)
        for text, tokens in zip(texts, offsets, strict=True)
    ]


def cut_text(tokenizer: Any, text: str, tokens: list[tuple[int, int]], limit: int) -> str:
    """Returns the start of a text that has at most ``limit`` tokens when it is read alone."""
    # The pieces of a cut word can be more than they were in the whole word: cut on until it fits.
    for keep in range(limit, 0, -1):
        shorter = text[: tokens[keep - 1][1]]
        if len(token_offsets(tokenizer, [shorter])[0]) <= limit:
            return shorter
    return ""


def token_offsets(tokenizer: Any, texts: list[str]) -> list[list[tuple[int, int]]]:
    """Returns the characters of each token, without special tokens."""
    encoding = tokenizer(
        texts, add_special_tokens=False, return_offsets_mapping=True, return_attention_mask=False,
        truncation=False,
    )  # fmt: skip
    found: list[list[tuple[int, int]]] = encoding["offset_mapping"]
    return found


def answer_tokens(window: Window, start: int, end: int) -> tuple[int, int] | None:
    """Returns the positions of the first and last token of an answer, ``None`` if it is not whole.

    A token belongs to the answer if they share a character, so an answer that begins or ends
    inside a token is widened to the whole token.

    Args:
        window: a row of tokens.
        start: first character of the answer in the context.
        end: the character behind it.
    """
    firsts_C, behinds_C = window.offsets.unbind(1)
    is_inside_C = (firsts_C < end) & (behinds_C > start) & (behinds_C > firsts_C)
    inside = is_inside_C.nonzero().flatten().tolist()
    if not inside:
        return None
    first, last = inside[0], inside[-1]
    # Only at the border of a window can a part of the answer be outside.
    if (first == 0 and int(firsts_C[first]) > start) or (
        last == len(behinds_C) - 1 and int(behinds_C[last]) < end
    ):
        return None
    return window.first + first, window.first + last


def best_spans(
    windows: Sequence[Window],
    context: str,
    logits: Sequence[tuple[Tensor, Tensor]],
    *,
    num_best: int,
    max_answer_tokens: int,
) -> list[Span]:
    """Returns the best answers of a question over all its windows, best first.

    Of several spans of one text the best counts.

    Args:
        windows: all windows of the question.
        context: the text they were cut from.
        logits: start and end logits ``[S]`` of each window; padding behind it may follow.
        num_best: answers at most.
        max_answer_tokens: tokens of one answer at most.
    """
    best: dict[str, Span] = {}
    for window, (starts_S, ends_S) in zip(windows, logits, strict=True):
        for span in spans_of(window, context, starts_S, ends_S, num_best, max_answer_tokens):
            known = best.get(span.text)
            if known is None or span.score > known.score:
                best[span.text] = span
    ranked = sorted(best.values(), key=lambda span: (-span.score, span.start, span.end))
    return ranked[:num_best]


def spans_of(
    window: Window,
    context: str,
    starts_S: Tensor,
    ends_S: Tensor,
    num_best: int,
    max_answer_tokens: int,
) -> list[Span]:
    """Returns the best answers of one window; every pair of a start and an end is looked at."""
    count = len(window.offsets)
    if not count:
        return []
    inside = slice(window.first, window.first + count)
    starts_C, ends_C = starts_S[inside].double(), ends_S[inside].double()
    width = min(max_answer_tokens, count)
    behind_CA = F.pad(ends_C, (0, width - 1), value=-torch.inf).unfold(0, width, 1)
    scores = (starts_C[:, None] + behind_CA).flatten()
    values, places = scores.topk(min(num_best, len(scores)))
    return [
        span
        for value, place in zip(values.tolist(), places.tolist(), strict=True)
        if value > -torch.inf
        for span in [span_at(window, context, place // width, place % width, starts_C, ends_C)]
        if span.text
    ]


def span_at(
    window: Window, context: str, first: int, more: int, starts_C: Tensor, ends_C: Tensor
) -> Span:
    """Returns the answer from one token of the context to another, white space around it cut."""
    last = first + more
    start, end = int(window.offsets[first, 0]), int(window.offsets[last, 1])
    text = context[start:end]
    start += len(text) - len(text.lstrip())
    text = text.strip()
    return Span(text, start, start + len(text), float(starts_C[first]), float(ends_C[last]))


def null_span(windows: Sequence[Window], logits: Sequence[tuple[Tensor, Tensor]]) -> Span:
    """Returns "no answer" with its logits: those of the window which believes in it least."""
    spans = [
        Span("", 0, 0, float(starts_S[window.null]), float(ends_S[window.null]))
        for window, (starts_S, ends_S) in zip(windows, logits, strict=True)
    ]
    return min(spans, key=lambda span: span.score)
