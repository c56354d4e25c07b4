"""Any unit of the corpus -> cleaned documents and their digests."""

from __future__ import annotations

import hashlib
import itertools
import os
import re
from collections.abc import Iterator

from magicbert.config.sections import CorpusSection
from magicbert.data import embedded
from magicbert.data.decompression import reading, reading_seekable
from magicbert.data.hub import hub_documents
from magicbert.data.plain_text import text_documents
from magicbert.data.record_files import jsonl_documents, parquet_documents
from magicbert.data.skipping import EMPTY_FILE, Skips
from magicbert.data.sources import CorpusUnit

# Everything of Unicode's class Cc but tab and line feed, and the byte-order mark.
CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ufeff]")


def read_documents(unit: CorpusUnit, corpus: CorpusSection, skips: Skips) -> Iterator[str]:
    """Yields the documents of one unit as they stand, in order, without loading it whole.

    What is left out is counted in ``skips``; the same unit always gives the same documents.

    Raises:
        UserError: the unit is damaged or not what its name says.
    """
    documents = _read(unit, corpus, skips)
    return itertools.islice(documents, corpus.max_documents or None)


def clean(text: str) -> str:
    """Normalises one document: CRLF and CR become LF, other control characters a space.

    White space at both ends goes; inside it stays, because a byte-level vocabulary sees it.
    """
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    if CONTROL.search(text):  # rare, and the search is much faster than the replacement
        text = CONTROL.sub(" ", text)
    return text.strip()


def document_digest(text: str) -> bytes:
    """Returns 16 bytes that stand for a cleaned document."""
    return hashlib.blake2b(text.encode("utf-8"), digest_size=16).digest()


def _read(unit: CorpusUnit, corpus: CorpusSection, skips: Skips) -> Iterator[str]:
    if unit.kind == "embedded":
        yield from embedded.documents()
    elif unit.kind == "hub":
        yield from hub_documents(unit.name, corpus.text_field, stream=corpus.max_documents > 0)
    elif os.path.getsize(unit.path) == 0:
        skips.add(EMPTY_FILE)
    elif unit.kind == "parquet":
        with reading_seekable(unit) as stream:
            yield from parquet_documents(stream, corpus.text_field, skips)
    elif unit.kind == "jsonl":
        with reading(unit) as stream:
            yield from jsonl_documents(stream, corpus.text_field, skips)
    else:
        with reading(unit) as stream:
            yield from text_documents(stream, corpus.document_separator, skips)
