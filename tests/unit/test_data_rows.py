from __future__ import annotations

import numpy as np
import pytest

from magicbert.data.rows import MAX_OPEN_ROWS, FullRows, PackedRows, RowFormat
from magicbert.data.shards import segment_ids_of

PAD, CLS, SEP = 0, 1, 2
FORM = RowFormat(length=10, pad_id=PAD, cls_id=CLS, sep_id=SEP, type=np.dtype(np.uint16))


def make_lengths(count: int, longest: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, longest, count).astype(np.int64)


def make_ids(lengths: np.ndarray) -> np.ndarray:
    """Returns distinct ids, so that order, loss and repetition all show."""
    return np.arange(10, 10 + lengths.sum()).astype(np.uint16)


def build(builder: FullRows | PackedRows, lengths: np.ndarray, batch: int) -> np.ndarray:
    ids, ends = make_ids(lengths), np.cumsum(lengths)
    rows = []
    for start in range(0, len(lengths), batch):
        part = lengths[start : start + batch]
        first = ends[start] - lengths[start]
        rows.append(builder.add(ids[first : first + part.sum()], part))
    return np.concatenate([*rows, builder.finish()])


def test_full_rows_are_the_stream_with_separators_between_documents() -> None:
    lengths = np.array([3, 0, 12, 1, 6], dtype=np.int64)
    rows = build(FullRows(FORM), lengths, batch=2)

    stream = [t for row in rows for t in row[1:-1].tolist()]
    expected = [
        *range(10, 13), SEP, *range(13, 25), SEP, 25, SEP, *range(26, 32),
    ]  # fmt: skip
    assert stream[: len(expected)] == expected
    assert rows.shape == (4, 10)
    assert (rows[:, 0] == CLS).all()
    assert (rows[:3, -1] == SEP).all()
    # The rest of one token, closed and padded.
    assert rows[3].tolist() == [CLS, 31, SEP] + [PAD] * 7


def test_full_rows_have_one_segment_and_no_padding_but_in_the_last() -> None:
    rows = build(FullRows(FORM), make_lengths(500, 30), batch=7)
    segments = segment_ids_of(rows, cls_id=CLS, pad_id=PAD)

    assert (segments[:-1] == 1).all()
    assert set(segments[-1]) <= {0, 1}


@pytest.mark.parametrize("layout", [FullRows, PackedRows])
def test_rows_do_not_depend_on_how_documents_are_batched(layout: type) -> None:
    lengths = make_lengths(300, 25)

    assert np.array_equal(build(layout(FORM), lengths, 300), build(layout(FORM), lengths, 1))


def test_packed_rows_lose_and_repeat_nothing_and_keep_documents_whole() -> None:
    lengths = make_lengths(3000, 20)
    rows = build(PackedRows(FORM), lengths, batch=100)
    ends = np.cumsum(lengths) + 10
    expected = set()
    for length, end in zip(lengths.tolist(), ends.tolist(), strict=True):
        for first in range(end - length, end, 8):
            expected.add((first, min(first + 8, end)))

    assert segments_in(rows) == expected


def segments_in(rows: np.ndarray) -> set[tuple[int, int]]:
    """Reads the segments back: each [CLS] run [SEP] of consecutive ids, found once."""
    found = set()
    segments = segment_ids_of(rows, cls_id=CLS, pad_id=PAD)
    for row, ids in zip(rows, segments, strict=True):
        numbers = [number for number in np.unique(ids) if number]
        assert numbers == list(range(1, len(numbers) + 1))
        for number in numbers:
            inside = row[ids == number].astype(int)
            assert inside[0] == CLS
            assert inside[-1] == SEP
            assert (np.diff(inside[1:-1]) == 1).all()
            span = (int(inside[1]), int(inside[-2]) + 1)
            assert span not in found
            found.add(span)
    return found


def test_best_fit_fills_rows_well() -> None:
    form = RowFormat(length=128, pad_id=PAD, cls_id=CLS, sep_id=SEP, type=np.dtype(np.int32))
    lengths = make_lengths(5000, 90, seed=1)
    rows = build(PackedRows(form), lengths, batch=500)

    assert (rows != PAD).mean() > 0.97


def test_the_number_of_open_rows_is_bounded() -> None:
    builder = PackedRows(FORM)
    # Every document leaves room for 4 tokens with its own [CLS] and [SEP], and none fits.
    closed = builder.add(np.full(5 * 2000, 9, dtype=np.uint16), np.full(2000, 5, dtype=np.int64))

    assert len(closed) == 2000 - MAX_OPEN_ROWS
    assert len(builder.finish()) == MAX_OPEN_ROWS


def test_no_documents_give_no_rows() -> None:
    for builder in (FullRows(FORM), PackedRows(FORM)):
        assert build(builder, np.array([0, 0], dtype=np.int64), batch=1).shape == (0, 10)
