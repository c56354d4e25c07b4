"""The corpus as token ids, in pieces that survive a stop.

A piece is a run of documents of some megabytes of text. Its name is a digest of its documents and
the tokenizer, so a piece found on disk is reused exactly when it is what this run would write.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from magicbert.config.sections import CorpusSection
from magicbert.data.encoding import (
    DocumentBatch,
    EncodedDocuments,
    encode_documents,
    start_encoder,
)
from magicbert.data.progress import ByteProgress
from magicbert.data.selection import changed_while_read, read_selected, unit_of
from magicbert.data.shards import read_columns, write_columns
from magicbert.data.survey import LEFT_OUT, VALID, Survey
from magicbert.data.workers import map_in_order
from magicbert.errors import UserError
from magicbert.records import digest_of, file_digest, read_record, write_record

LOGGER = logging.getLogger("magicbert")
SCHEMA = "magicbert/token-piece/1"
PIECE_BYTES = 16 << 20
BATCH_BYTES = 1 << 18


@dataclass(frozen=True, slots=True)
class Piece:
    """A run of documents.

    Attributes:
        indices: numbers of its kept documents.
        path: its file.
    """

    indices: npt.NDArray[np.int64]
    path: Path

    @property
    def is_finished(self) -> bool:
        """Whether the file stands there, undamaged."""
        try:
            record = read_record(self.path.with_suffix(".json"), SCHEMA)
            return bool(file_digest(self.path) == record["file_sha256"])
        except (UserError, OSError):
            return False


def plan_pieces(survey: Survey, tokenizer_digest: str, folder: Path) -> list[Piece]:
    """Cuts the kept documents into pieces of about 16 MiB of text."""
    kept = np.flatnonzero(survey.fates != LEFT_OUT)
    starts = np.cumsum(survey.sizes[kept]) - survey.sizes[kept]
    borders = np.flatnonzero(np.diff(starts // PIECE_BYTES)) + 1
    pieces = []
    for indices in np.split(kept, borders):
        content = hashlib.sha256(survey.digests[indices].tobytes())
        content.update(survey.fates[indices].tobytes())
        name = digest_of([SCHEMA, tokenizer_digest, content.hexdigest()])[:32]
        pieces.append(Piece(indices, folder / f"{name}.arrow"))
    return pieces


def encode_pieces(
    pieces: list[Piece],
    survey: Survey,
    corpus: CorpusSection,
    tokenizer_folder: Path,
    *,
    num_workers: int,
) -> None:
    """Writes every piece that is not finished; the result does not depend on the workers."""
    missing = [piece for piece in pieces if not piece.is_finished]
    if len(missing) < len(pieces):
        LOGGER.info("tokenising: %d of %d pieces stand", len(pieces) - len(missing), len(pieces))
    if not missing:
        return
    missing[0].path.parent.mkdir(parents=True, exist_ok=True)
    encoded = map_in_order(
        encode_documents,
        _batches(missing, survey, corpus),
        num_workers=num_workers,
        start=start_encoder,
        arguments=(tokenizer_folder,),
    )
    total = sum(int(survey.sizes[piece.indices].sum()) for piece in missing)
    with ByteProgress("tokenising", total) as progress:
        checked = _checked(encoded, survey, progress)
        for piece in missing:
            _write_piece(piece, _take(checked, len(piece.indices)), survey)


def read_piece(
    piece: Piece, *, valid: bool
) -> tuple[npt.NDArray[np.integer], npt.NDArray[np.int64]]:
    """Returns flat ids and token counts of the documents of one split."""
    columns = read_columns(piece.path)
    lists = columns.column("ids")
    ids = lists.flatten().to_numpy()
    lengths = np.diff(lists.offsets.to_numpy())
    chosen = columns.column("is_valid").to_numpy(zero_copy_only=False) == valid
    return ids[np.repeat(chosen, lengths)], lengths[chosen]


def _batches(pieces: list[Piece], survey: Survey, corpus: CorpusSection) -> Iterator[DocumentBatch]:
    """Yields the documents of the pieces in order; no batch reaches into the next piece."""
    wanted = np.zeros(len(survey.fates), dtype=bool)
    is_last = np.zeros(len(survey.fates), dtype=bool)
    for piece in pieces:
        wanted[piece.indices] = True
        is_last[piece.indices[-1]] = True
    indices: list[int] = []
    documents: list[str] = []
    size = 0
    for index, document in read_selected(survey, corpus, wanted):
        indices.append(index)
        documents.append(document)
        size += int(survey.sizes[index])
        if is_last[index] or size >= BATCH_BYTES:
            yield DocumentBatch(np.array(indices), documents)
            indices, documents, size = [], [], 0


def _checked(
    encoded: Iterable[EncodedDocuments], survey: Survey, progress: ByteProgress
) -> Iterator[EncodedDocuments]:
    for batch in encoded:
        differs = (batch.digests != survey.digests[batch.indices]).any(axis=1)
        if differs.any():
            raise changed_while_read(unit_of(survey, int(batch.indices[differs][0])))
        progress.advance(int(survey.sizes[batch.indices].sum()))
        yield batch


def _take(encoded: Iterator[EncodedDocuments], num_documents: int) -> list[EncodedDocuments]:
    taken: list[EncodedDocuments] = []
    while num_documents > 0:
        taken.append(next(encoded))
        num_documents -= len(taken[-1].indices)
    return taken


def _write_piece(piece: Piece, parts: list[EncodedDocuments], survey: Survey) -> None:
    lengths = np.concatenate([part.lengths for part in parts])
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    ids = pa.LargeListArray.from_arrays(
        pa.array(offsets, pa.int64()), pa.array(np.concatenate([part.ids for part in parts]))
    )
    is_valid = pa.array(survey.fates[piece.indices] == VALID)
    write_columns(piece.path, {"ids": ids, "is_valid": is_valid})
    record = {"file_sha256": file_digest(piece.path)}
    write_record(piece.path.with_suffix(".json"), SCHEMA, record)
