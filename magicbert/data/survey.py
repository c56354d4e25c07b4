"""First reading of the corpus: every document's digest and size, and what becomes of it.

Nothing is written before the whole corpus has been read once, so bad input is refused early. The
fate of a document depends on its own text and on the documents before it, never on the workers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from magicbert.config.sections import CorpusSection
from magicbert.data.documents import clean, document_digest, read_documents
from magicbert.data.manifest import SkippedItem
from magicbert.data.skipping import DUPLICATE, EMPTY_DOCUMENT, EMPTY_FILE, Skips
from magicbert.data.sources import CorpusUnit
from magicbert.data.workers import map_in_order
from magicbert.errors import UserError

LEFT_OUT, TRAIN, VALID = 0, 1, 2
Digests = npt.NDArray[np.uint64]


@dataclass(frozen=True)
class UnitSurvey:
    """What one reading of a unit found.

    Attributes:
        digests: ``[documents, 2]``, 128 bits each.
        sizes: ``[documents]`` bytes of the cleaned document; 0 = empty.
        skipped: what the reader left out.
    """

    digests: Digests
    sizes: npt.NDArray[np.int64]
    skipped: tuple[SkippedItem, ...]


@dataclass(frozen=True)
class Survey:
    """The whole corpus, valid sources first; arrays run over its documents in reading order.

    Attributes:
        units: what was read.
        num_documents: documents of each unit.
        digests: ``[documents, 2]``.
        sizes: ``[documents]`` bytes of the cleaned document.
        fates: ``[documents]`` ``LEFT_OUT``, ``TRAIN`` or ``VALID``.
        skipped: everything that was left out and why.
    """

    units: tuple[CorpusUnit, ...]
    num_documents: tuple[int, ...]
    digests: Digests
    sizes: npt.NDArray[np.int64]
    fates: npt.NDArray[np.uint8]
    skipped: tuple[SkippedItem, ...]

    def kept_bytes(self, fate: int) -> int:
        """Returns the size of one split in bytes."""
        return int(self.sizes[self.fates == fate].sum())

    def kept_documents(self, fate: int) -> int:
        """Returns the number of documents of one split."""
        return int((self.fates == fate).sum())


@dataclass(frozen=True)
class _Task:
    unit: CorpusUnit
    corpus: CorpusSection


def survey_corpus(
    train_units: Sequence[CorpusUnit],
    valid_units: Sequence[CorpusUnit],
    corpus: CorpusSection,
    *,
    num_workers: int,
) -> Survey:
    """Reads all units once and decides what becomes of each document.

    Raises:
        UserError: bad input, or a split without a document.
    """
    valid = list(_survey_units(valid_units, corpus, num_workers))
    train = list(_survey_units(train_units, corpus, num_workers))
    found = [*valid, *train]
    counts = np.array([len(unit.sizes) for unit in found], dtype=np.int64)
    digests = np.concatenate([unit.digests for unit in found])
    sizes = np.concatenate([unit.sizes for unit in found])
    num_valid = sum(len(unit.sizes) for unit in valid)
    is_duplicate = duplicates(digests) if corpus.deduplicate else np.zeros(len(sizes), dtype=bool)
    is_duplicate &= sizes > 0
    fates = _split(digests, num_valid, corpus)
    fates[(sizes == 0) | is_duplicate] = LEFT_OUT
    units = (*valid_units[: len(valid)], *train_units[: len(train)])
    owners = np.repeat(np.arange(len(found)), counts)
    skipped = [item for unit in found for item in unit.skipped]
    skipped += _count_by_unit(units, owners[sizes == 0], EMPTY_DOCUMENT)
    skipped += _count_by_unit(units, owners[is_duplicate], DUPLICATE)
    survey = Survey(units, tuple(counts.tolist()), digests, sizes, fates, tuple(skipped))
    _check_not_empty(survey, corpus)
    return survey


def survey_unit(task: _Task) -> UnitSurvey:
    """Reads one unit (runs in a worker)."""
    skips = Skips(task.unit.name, task.corpus.on_bad_utf8)
    digests, sizes = [], []
    for raw in read_documents(task.unit, task.corpus, skips):
        text = clean(raw)
        digests.append(document_digest(text))
        sizes.append(len(text.encode("utf-8")))
    if not sizes and not skips.items():
        skips.add(EMPTY_FILE)
    joined = np.frombuffer(b"".join(digests), dtype="<u8").astype(np.uint64).reshape(-1, 2)
    return UnitSurvey(joined, np.array(sizes, dtype=np.int64), skips.items())


def duplicates(digests: Digests) -> npt.NDArray[np.bool_]:
    """Returns which documents have an equal one before them."""
    order = np.lexsort((digests[:, 1], digests[:, 0]))  # stable: the first comes first
    ordered = digests[order]
    repeated = np.zeros(len(digests), dtype=bool)
    repeated[order[1:]] = (ordered[1:] == ordered[:-1]).all(axis=1)
    return repeated


def _survey_units(
    units: Sequence[CorpusUnit], corpus: CorpusSection, num_workers: int
) -> Iterator[UnitSurvey]:
    """Yields the surveys in order, up to ``max_documents`` documents."""
    left = corpus.max_documents
    tasks = [_Task(unit, corpus) for unit in units]
    surveys = map_in_order(survey_unit, tasks, num_workers=min(num_workers, max(1, len(tasks))))
    for survey in surveys:
        if corpus.max_documents and len(survey.sizes) >= left:
            yield UnitSurvey(survey.digests[:left], survey.sizes[:left], survey.skipped)
            return
        left -= len(survey.sizes)
        yield survey


def _split(digests: Digests, num_valid: int, corpus: CorpusSection) -> npt.NDArray[np.uint8]:
    """Assigns the split: by source where valid sources are given, by digest where not."""
    fates = np.full(len(digests), TRAIN, dtype=np.uint8)
    fates[:num_valid] = VALID
    if not corpus.valid_sources:
        fates[digests[:, 0] < round(corpus.valid_fraction * 2**64)] = VALID
    return fates


def _count_by_unit(
    units: Sequence[CorpusUnit], owners: npt.NDArray[np.int64], reason: str
) -> Iterator[SkippedItem]:
    for unit, count in enumerate(np.bincount(owners, minlength=len(units)).tolist()):
        if count:
            yield SkippedItem(units[unit].name, reason, count, "")


def _check_not_empty(survey: Survey, corpus: CorpusSection) -> None:
    num_train, num_valid = survey.kept_documents(TRAIN), survey.kept_documents(VALID)
    if not num_train + num_valid:
        raise UserError(f"corpus.sources: no document in {', '.join(corpus.sources)}")
    if not num_train:
        raise UserError("corpus: every document went to the valid split; lower valid_fraction")
    if not num_valid:
        raise UserError(
            f"corpus.valid_fraction: {corpus.valid_fraction} of {num_train} documents left the "
            "valid split empty; raise it, name valid_sources, or split documents finer with "
            "document_separator"
        )
