"""Rows of token ids in Arrow files: written in order, read through memory maps.

A shard is one Arrow IPC file with one column ``input_ids`` of fixed-size lists, in the smallest
integer type that holds the vocabulary. Segment ids are not stored: [CLS] opens every segment and
stands nowhere else, so they follow from the ids.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from magicbert.data.manifest import ShardFile
from magicbert.errors import UserError
from magicbert.faults import fault
from magicbert.records import file_digest, sync

COLUMN = "input_ids"
Rows = npt.NDArray[np.integer]


def token_type(vocab_size: int) -> np.dtype[np.integer]:
    """Returns uint16 or int32, whichever is the smallest that holds every id."""
    return np.dtype(np.uint16 if vocab_size <= 2**16 else np.int32)


def segment_ids_of(rows: Rows, *, cls_id: int, pad_id: int) -> npt.NDArray[np.int64]:
    """Returns 1.. for the documents of each row and 0 for padding, ``[rows, length]``."""
    segments = np.cumsum(rows == cls_id, axis=1, dtype=np.int64)
    segments[rows == pad_id] = 0
    return segments


class ShardWriter:
    """Writes the rows of one split, ``rows_per_shard`` to a file.

    Args:
        folder: prepared folder (or the working copy of it); files go to ``folder/split``.
        split: name of the split.
        rows_per_shard: rows in every file but the last.
    """

    def __init__(self, folder: Path, split: str, *, rows_per_shard: int) -> None:
        self._folder, self._split, self._rows_per_shard = folder, split, rows_per_shard
        self._pending: list[Rows] = []
        self._num_pending = 0
        self._files: list[ShardFile] = []
        (folder / split).mkdir(parents=True, exist_ok=True)

    def add(self, rows: Rows) -> None:
        """Appends rows ``[n, length]``."""
        self._pending.append(rows)
        self._num_pending += len(rows)
        while self._num_pending >= self._rows_per_shard:
            joined = np.concatenate(self._pending)
            self._write(joined[: self._rows_per_shard])
            self._pending = [joined[self._rows_per_shard :]]
            self._num_pending = len(self._pending[0])

    def finish(self) -> tuple[ShardFile, ...]:
        """Writes what is left and returns all files."""
        if self._num_pending:
            self._write(np.concatenate(self._pending))
        self._pending, self._num_pending = [], 0
        return tuple(self._files)

    def _write(self, rows: Rows) -> None:
        name = f"{self._split}/{len(self._files):05d}.arrow"
        path = self._folder / name
        values = pa.array(np.ascontiguousarray(rows).reshape(-1))
        column = pa.FixedSizeListArray.from_arrays(values, rows.shape[1])
        write_columns(path, {COLUMN: column})
        self._files.append(ShardFile(name, len(rows), path.stat().st_size, file_digest(path)))


def write_columns(path: Path, columns: dict[str, pa.Array]) -> None:
    """Writes one record batch to an Arrow file, beside and then renamed."""
    batch = pa.record_batch(columns)
    aside = path.with_suffix(".tmp")
    with pa.OSFile(str(aside), "wb") as sink:
        with pa.ipc.new_file(sink, batch.schema) as writer:
            writer.write_batch(batch)
        sink.flush()
    sync(aside)
    fault("prepare.shard")
    aside.replace(path)


def read_columns(path: Path) -> pa.RecordBatch:
    """Maps an Arrow file of one record batch.

    Raises:
        UserError: the file is missing or not such a file.
    """
    try:
        with pa.ipc.open_file(pa.memory_map(str(path))) as reader:
            return reader.get_batch(0)
    except (OSError, pa.ArrowInvalid, pa.ArrowIndexError) as error:
        raise UserError(f"{path}: cannot be read as an Arrow file: {error}") from error


class RowStore:
    """Random access to the rows of one split; nothing is loaded ahead.

    Args:
        folder: prepared folder.
        files: its shards, in row order.
        length: tokens per row.
    """

    def __init__(self, folder: Path, files: Sequence[ShardFile], length: int) -> None:
        self._shards = [self._open(folder / file.path, file, length) for file in files]
        self._ends = np.cumsum([file.num_rows for file in files], dtype=np.int64)
        self._starts = self._ends - [file.num_rows for file in files]
        self._length = length

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def take(self, indices: npt.NDArray[np.int64]) -> Rows:
        """Returns a copy of rows by index, ``[len(indices), length]``."""
        rows = np.empty((len(indices), self._length), dtype=self._shards[0].dtype)
        shards = np.searchsorted(self._ends, indices, side="right")
        for shard in np.unique(shards):
            wanted = shards == shard
            rows[wanted] = self._shards[shard][indices[wanted] - self._starts[shard]]
        return rows

    @staticmethod
    def _open(path: Path, file: ShardFile, length: int) -> Rows:
        column = read_columns(path).column(COLUMN)
        if len(column) != file.num_rows or column.type.list_size != length:
            raise UserError(f"{path}: does not hold {file.num_rows} rows of {length} tokens")
        rows: Rows = column.flatten().to_numpy(zero_copy_only=True).reshape(-1, length)
        return rows
