"""Plain text -> documents, in bounded memory."""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from typing import BinaryIO, Literal

from magicbert.data.skipping import CUT, Skips
from magicbert.errors import UserError

BLOCK_BYTES = 1 << 20
MAX_DOCUMENT_BYTES = 4 << 20  # tokenising takes seventeen times as much memory
Separator = Literal["blank-line", "line", "file"]
Block = tuple[bytes, int]  # bytes of a document and their offset in the file


def text_documents(stream: BinaryIO, separator: Separator, skips: Skips) -> Iterator[str]:
    """Yields the documents of one plain-text stream.

    Lines end with LF, CRLF or CR. A UTF-8 byte-order mark is dropped. A document above 4 MiB is
    cut in two at a line end, or inside a line that is longer than that.

    Raises:
        UserError: a NUL byte, or bad UTF-8 that is to be refused.
    """
    for data, offset in _blocks(stream, separator, skips):
        if offset == 0:
            data = data.removeprefix(codecs.BOM_UTF8)
        try:
            yield data.decode("utf-8")
        except UnicodeDecodeError as error:
            skips.bad_utf8(f"byte {offset + error.start}")


def lines_of(stream: BinaryIO, source: str, max_bytes: int) -> Iterator[bytes]:
    """Yields lines with their ends; a longer line comes in parts of at least ``max_bytes``.

    Raises:
        UserError: a NUL byte: the file is not text, or it is UTF-16 or UTF-32.
    """
    rest, offset = b"", 0
    while block := stream.read(BLOCK_BYTES):
        if (nul := block.find(0)) >= 0:
            raise UserError(
                f"{source}: binary data (NUL at byte {offset + nul}); "
                "give text in UTF-8 (UTF-16 must be converted)"
            )
        offset += len(block)
        # The last piece may go on in the next block, even after a CR: an LF may follow.
        *lines, rest = (rest + block).splitlines(keepends=True)
        yield from lines
        if len(rest) >= max_bytes:
            end = _character_start(rest)
            yield rest[:end]
            rest = rest[end:]
    if rest:
        yield rest


def _blocks(stream: BinaryIO, separator: Separator, skips: Skips) -> Iterator[Block]:
    """Yields documents as bytes with their offset in the stream."""
    kept: list[bytes] = []
    size = start = offset = 0
    for line in lines_of(stream, skips.source, MAX_DOCUMENT_BYTES):
        is_blank = not line.strip()
        if kept and size + len(line) > MAX_DOCUMENT_BYTES:
            skips.add(CUT, f"byte {offset}")
            yield b"".join(kept), start
            kept, size = [], 0
        if not kept:
            start = offset
        offset += len(line)
        if separator == "file" or not is_blank:
            kept.append(line)
            size += len(line)
        if kept and (separator == "line" or (separator == "blank-line" and is_blank)):
            yield b"".join(kept), start
            kept, size = [], 0
    if kept:
        yield b"".join(kept), start


def _character_start(data: bytes) -> int:
    """Returns where the last UTF-8 character begins, so that a cut does not split it."""
    for end in range(len(data) - 1, max(len(data) - 4, 0), -1):
        if data[end] & 0xC0 != 0x80:
            return end
    return len(data)
