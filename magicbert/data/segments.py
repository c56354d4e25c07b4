"""Long documents in pieces that a tokenizer takes without much memory."""

from __future__ import annotations

from collections.abc import Iterator

MAX_SEGMENT_LENGTH = 1 << 16  # characters


def cut(text: str, max_length: int = MAX_SEGMENT_LENGTH) -> Iterator[str]:
    """Yields the text in pieces; joined they are the text.

    A cut stands before a line end, else before a space, else (a "word" as long as the piece)
    anywhere. White space begins the next piece, as in a byte-level vocabulary's own words, so
    the tokens are those of the whole text.
    """
    start = 0
    while len(text) - start > max_length:
        end = text.rfind("\n", start + 1, start + max_length)
        if end < 0:
            end = text.rfind(" ", start + 1, start + max_length)
        if end < 0:
            end = start + max_length
        yield text[start:end]
        start = end
    yield text[start:]
