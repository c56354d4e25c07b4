"""Documents -> token ids, in worker processes."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

import numpy as np
import numpy.typing as npt

from magicbert.data.documents import clean, document_digest
from magicbert.data.segments import cut
from magicbert.data.shards import token_type
from magicbert.data.tokenizer import read_tokenizer

Integers = npt.NDArray[np.integer]


@dataclass(frozen=True)
class DocumentBatch:
    """Documents on their way to a worker.

    Attributes:
        indices: ``[documents]`` their numbers in the corpus.
        documents: as they were read.
    """

    indices: Integers
    documents: list[str]


@dataclass(frozen=True)
class EncodedDocuments:
    """Token ids of several documents, one after another, without special tokens.

    Attributes:
        indices: ``[documents]`` their numbers in the corpus.
        ids: ``[tokens]`` of all documents.
        lengths: ``[documents]`` tokens of each.
        digests: ``[documents, 2]`` of the cleaned texts.
    """

    indices: Integers
    ids: Integers
    lengths: npt.NDArray[np.int64]
    digests: npt.NDArray[np.uint64]


class Encoder:
    """Encodes documents; text that looks like a special token stays text.

    Args:
        folder: the saved tokenizer.
    """

    def __init__(self, folder: Path) -> None:
        tokenizer = read_tokenizer(folder)
        self._backend = tokenizer.backend
        self._backend.encode_special_tokens = True
        self._backend.no_truncation()
        self._backend.no_padding()
        # Some models spell special tokens from text all the same: those become [UNK], because
        # [CLS] and padding in the middle of a row would be taken for what they are not.
        self._as_text = np.arange(tokenizer.vocab_size, dtype=token_type(tokenizer.vocab_size))
        self._as_text[list(tokenizer.special_ids())] = tokenizer.id_of("unk")

    def __call__(self, batch: DocumentBatch) -> EncodedDocuments:
        """Cleans and encodes documents."""
        texts = [clean(document) for document in batch.documents]
        segments = [list(cut(text)) for text in texts]
        encodings = self._backend.encode_batch_fast(
            [segment for pieces in segments for segment in pieces], add_special_tokens=False
        )
        parts = [np.array(encoding.ids, dtype=np.int64) for encoding in encodings]
        ends = list(accumulate((len(pieces) for pieces in segments), initial=0))
        lengths = np.diff(np.cumsum([0, *map(len, parts)])[ends])
        digests = np.frombuffer(b"".join(map(document_digest, texts)), dtype="<u8").reshape(-1, 2)
        ids = self._as_text[np.concatenate(parts)]
        return EncodedDocuments(batch.indices, ids, lengths, digests)


_encoders: list[Encoder] = []


def start_encoder(folder: Path) -> None:
    """Loads the tokenizer once in a worker process."""
    _encoders[:] = [Encoder(folder)]


def encode_documents(batch: DocumentBatch) -> EncodedDocuments:
    """Encodes with the tokenizer of this worker process."""
    return _encoders[0](batch)
