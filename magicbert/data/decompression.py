"""Files as streams of plain bytes, whatever their compression; damage is named, not guessed at."""

from __future__ import annotations

import contextlib
import gzip
import io
import lzma
import tempfile
import zlib
from collections.abc import Iterator
from typing import BinaryIO, cast

import pyarrow as pa

from magicbert.data.sources import CorpusUnit
from magicbert.errors import UserError

COPY_BYTES = 1 << 20


@contextlib.contextmanager
def reading(unit: CorpusUnit) -> Iterator[BinaryIO]:
    """Opens a file for streaming; every failure while it is open becomes a `UserError`."""
    try:
        with _open(unit) as stream:
            yield stream
    except EOFError as error:
        raise UserError(_damage(unit, "truncated", error)) from error
    except (zlib.error, lzma.LZMAError, gzip.BadGzipFile, pa.ArrowInvalid) as error:
        raise UserError(_damage(unit, "damaged", error)) from error
    except OSError as error:  # Arrow reports truncated zstd as one
        state = "truncated" if "Truncated" in str(error) else "cannot be read"
        raise UserError(_damage(unit, state, error)) from error


@contextlib.contextmanager
def reading_seekable(unit: CorpusUnit) -> Iterator[BinaryIO]:
    """Like `reading`, for formats that are read from their end; decompresses to a scratch file."""
    with reading(unit) as stream:
        if not unit.compression:
            yield stream
            return
        with tempfile.TemporaryFile() as scratch:
            while block := stream.read(COPY_BYTES):
                scratch.write(block)
            scratch.seek(0)
            yield cast(BinaryIO, scratch)


def _open(unit: CorpusUnit) -> BinaryIO:
    if unit.compression == ".gz":
        return cast(BinaryIO, gzip.open(unit.path, "rb"))
    if unit.compression == ".xz":
        return cast(BinaryIO, lzma.open(unit.path, "rb"))
    if unit.compression == ".zst":
        # Arrow's reader tells a truncated frame from the end of the file.
        raw = pa.CompressedInputStream(pa.OSFile(unit.path), "zstd")
        return cast(BinaryIO, io.BufferedReader(raw, COPY_BYTES))
    return open(unit.path, "rb")


def _damage(unit: CorpusUnit, state: str, error: Exception) -> str:
    return f"{unit.name}: {state}: {error}; fetch or write the file again"
