"""Later readings of the corpus: documents by number, and the sample a tokenizer is trained on."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from magicbert.config.sections import CorpusSection
from magicbert.data.counter_hash import key_of
from magicbert.data.documents import clean, read_documents
from magicbert.data.segments import cut
from magicbert.data.skipping import Skips
from magicbert.data.sources import CorpusUnit
from magicbert.data.survey import TRAIN, Survey
from magicbert.errors import UserError

SAMPLED_LENGTH = 4096  # characters of one sampled stretch


def read_selected(
    survey: Survey, corpus: CorpusSection, wanted: npt.NDArray[np.bool_]
) -> Iterator[tuple[int, str]]:
    """Yields number and raw text of the wanted documents; units without any are not opened."""
    start = 0
    for unit, count in zip(survey.units, survey.num_documents, strict=True):
        chosen = np.flatnonzero(wanted[start : start + count])
        if chosen.size:
            stop = int(chosen[-1]) + 1
            skips = Skips(unit.name, corpus.on_bad_utf8)  # counted at the first reading
            documents = itertools.islice(read_documents(unit, corpus, skips), stop)
            index = -1
            for index, document in enumerate(documents):
                if wanted[start + index]:
                    yield start + index, document
            if index + 1 < stop:
                raise changed_while_read(unit)
        start += count


def changed_while_read(unit: CorpusUnit) -> UserError:
    """Returns the error for a unit that differs between two readings."""
    return UserError(f"{unit.name}: changed while it was being prepared; run prepare again")


def unit_of(survey: Survey, index: int) -> CorpusUnit:
    """Returns the unit that holds a document."""
    ends = np.cumsum(survey.num_documents)
    return survey.units[int(np.searchsorted(ends, index, side="right"))]


def tokenizer_sample(survey: Survey, corpus: CorpusSection, max_bytes: int) -> list[str]:
    """Returns stretches of the training documents, spread over the corpus by digest.

    Args:
        survey: of the corpus.
        corpus: how to read it.
        max_bytes: size of the sample at most.
    """
    share = max_bytes / survey.kept_bytes(TRAIN)
    limit = min(round(share * 2**64), 2**64 - 1)
    sample: list[str] = []
    room = max_bytes
    for index, document in read_selected(survey, corpus, survey.fates == TRAIN):
        for text in _stretches(clean(document), int(survey.digests[index, 0]), limit):
            room -= len(text.encode("utf-8"))
            if room < 0:
                return sample
            sample.append(text)
    return sample


def _stretches(text: str, digest: int, limit: int) -> Iterator[str]:
    stretches = list(cut(text, SAMPLED_LENGTH))
    draws = key_of(digest, np.arange(len(stretches)))
    return itertools.compress(stretches, (draws <= limit).tolist())
