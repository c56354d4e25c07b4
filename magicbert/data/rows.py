"""Token ids of documents -> rows of one length, in two layouts.

``full`` (RoBERTa's FULL-SENTENCES, Liu et al. 2019, 4.2): the text of the split is one stream, with
[SEP] between documents; every row is [CLS], the next ``length - 2`` tokens of the stream, [SEP].
The last row of a split is padded, so no token is lost.

``packed``: every document stands as [CLS] ... [SEP] in a row, cut where it is longer than a row;
several share a row, each its own segment, by best fit over a bounded number of open rows.
"""

from __future__ import annotations

import bisect
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

Integers = npt.NDArray[np.integer]
MAX_OPEN_ROWS = 1024


@dataclass(frozen=True, slots=True)
class RowFormat:
    """What both layouts need to know.

    Attributes:
        length: tokens per row, special tokens included.
        type: integer type of the ids.
    """

    length: int
    pad_id: int
    cls_id: int
    sep_id: int
    type: np.dtype[np.integer]

    def empty(self, num_rows: int) -> Integers:
        """Returns rows of padding."""
        return np.full((num_rows, self.length), self.pad_id, dtype=self.type)


class RowBuilder(Protocol):
    """Takes documents in order, gives rows as they fill up."""

    def add(self, ids: Integers, lengths: npt.NDArray[np.int64]) -> Integers:
        """Takes documents (flat ids, tokens of each) and returns the rows now complete."""
        ...

    def finish(self) -> Integers:
        """Returns the rows that were still open."""
        ...


def build_rows(layout: str, form: RowFormat) -> RowBuilder:
    """Returns the builder of a layout, ``full`` or ``packed``."""
    return FullRows(form) if layout == "full" else PackedRows(form)


class FullRows:
    """The ``full`` layout."""

    def __init__(self, form: RowFormat) -> None:
        self._form = form
        self._rest = np.empty(0, dtype=form.type)
        self._has_begun = False

    def add(self, ids: Integers, lengths: npt.NDArray[np.int64]) -> Integers:
        """Appends documents to the stream and returns the rows that it now fills."""
        lengths = lengths[lengths > 0]
        starts = np.cumsum(lengths) - lengths
        separated = np.insert(ids, starts if self._has_begun else starts[1:], self._form.sep_id)
        self._has_begun |= bool(len(lengths))
        stream = np.concatenate([self._rest, separated])
        width = self._form.length - 2
        num_rows = len(stream) // width
        self._rest = stream[num_rows * width :]
        rows = self._form.empty(num_rows)
        rows[:, 0], rows[:, -1] = self._form.cls_id, self._form.sep_id
        rows[:, 1:-1] = stream[: num_rows * width].reshape(num_rows, width)
        return rows

    def finish(self) -> Integers:
        """Returns the last row, padded, if the stream has a rest."""
        rows = self._form.empty(1 if len(self._rest) else 0)
        if len(rows):
            end = len(self._rest) + 1
            rows[0, 0], rows[0, end] = self._form.cls_id, self._form.sep_id
            rows[0, 1:end] = self._rest
        self._rest = self._rest[:0]
        return rows


class PackedRows:
    """The ``packed`` layout.

    A piece goes to the open row that it fills best, the oldest of equals. A row is given out when
    nothing fits any more, or, the fullest first, when too many are open.
    """

    def __init__(self, form: RowFormat) -> None:
        self._form = form
        # (room left, number of the row), ascending: the first that fits is the best fit.
        self._open: list[tuple[int, int]] = []
        self._pieces: dict[int, list[Integers]] = {}
        self._num_rows = 0
        self._done: list[list[Integers]] = []

    def add(self, ids: Integers, lengths: npt.NDArray[np.int64]) -> Integers:
        """Places documents and returns the rows that are now closed."""
        width = self._form.length - 2
        ends = np.cumsum(lengths)
        for start, end in zip((ends - lengths).tolist(), ends.tolist(), strict=True):
            for first in range(start, end, width):
                self._place(ids[first : min(first + width, end)])
        return self._take_done()

    def finish(self) -> Integers:
        """Closes all open rows."""
        self._done += [self._pieces.pop(number) for _, number in self._open]
        self._open = []
        return self._take_done()

    def _place(self, piece: Integers) -> None:
        size = len(piece) + 2
        found = bisect.bisect_left(self._open, (size, 0))
        if found < len(self._open):
            room, number = self._open.pop(found)
        else:
            room, number = self._form.length, self._num_rows
            self._num_rows += 1
            self._pieces[number] = []
        self._pieces[number].append(piece)
        if room - size < 3:  # [CLS], one token, [SEP]
            self._done.append(self._pieces.pop(number))
            return
        bisect.insort(self._open, (room - size, number))
        if len(self._open) > MAX_OPEN_ROWS:
            _, fullest = self._open.pop(0)
            self._done.append(self._pieces.pop(fullest))

    def _take_done(self) -> Integers:
        rows = self._form.empty(len(self._done))
        for row, pieces in zip(rows, self._done, strict=True):
            start = 0
            for piece in pieces:
                end = start + len(piece) + 1
                row[start], row[end] = self._form.cls_id, self._form.sep_id
                row[start + 1 : end] = piece
                start = end + 1
        self._done = []
        return rows
