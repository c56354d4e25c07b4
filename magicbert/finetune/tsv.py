"""Strict reading of GLUE's tab-separated files: each line becomes a row or an error with its place.

Rules: one row per line feed (a carriage return before it belongs to the line end); quotes are
text; a byte-order mark is dropped; text such as ``NA`` or ``null`` stays text; nothing is
converted here.
"""

from __future__ import annotations

import gzip
import hashlib
import zlib
from dataclasses import dataclass
from pathlib import Path

from magicbert.errors import UserError


@dataclass(frozen=True)
class Table:
    """The rows of one file.

    Attributes:
        path: the file.
        sha256: digest of the file as it lies on disk.
        columns: column names.
        rows: fields of each row, as many as there are columns.
        lines: line number of each row, counted from 1.
        skipped_lines: numbers of ragged lines left out.
    """

    path: Path
    sha256: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    lines: tuple[int, ...]
    skipped_lines: tuple[int, ...]

    def column(self, name: str) -> int:
        """Returns the position of a column.

        Raises:
            UserError: there is no such column.
        """
        if name not in self.columns:
            raise error_at(
                self.path, 1, 1, f"no column {name!r}; its columns are {', '.join(self.columns)}"
            )
        return self.columns.index(name)


def error_at(path: Path, line: int, column: int, what: str) -> UserError:
    """Returns an error as ``file:line:column: what``; columns are fields, counted from 1."""
    return UserError(f"{path}:{line}:{column}: {what}")


def read_table(path: Path, header: tuple[str, ...] = (), max_ragged_rows: int = 0) -> Table:
    """Reads ``.tsv`` or ``.tsv.gz``.

    Args:
        path: the file.
        header: column names if the file has no header line.
        max_ragged_rows: rows with a wrong number of fields that may be left out; one more is an
            error.

    Raises:
        UserError: with file, line and column.
    """
    data = read_bytes(path)
    lines = split_lines(path, decode(path, data))
    columns = header or tuple(lines[0].split("\t"))
    if len(set(columns)) != len(columns):
        raise error_at(path, 1, 1, "the header names a column twice")
    first = 0 if header else 1
    rows: list[tuple[str, ...]] = []
    numbers: list[int] = []
    skipped: list[int] = []
    for number, line in enumerate(lines[first:], start=first + 1):
        fields = tuple(line.split("\t"))
        if len(fields) == len(columns):
            rows.append(fields)
            numbers.append(number)
        elif len(skipped) < max_ragged_rows:
            skipped.append(number)
        else:
            column = min(len(fields), len(columns)) + 1
            what = f"ragged row: {len(fields)} columns where {len(columns)} are expected"
            raise error_at(path, number, column, what)
    if not rows:
        raise error_at(path, first + 1, 1, "no rows")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return Table(path, digest, columns, tuple(rows), tuple(numbers), tuple(skipped))


def read_bytes(path: Path) -> bytes:
    """Returns the bytes of a file, unpacked if it is named ``.gz``."""
    try:
        data = path.read_bytes()
        return gzip.decompress(data) if path.suffix == ".gz" else data
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise UserError(f"{path}: damaged or truncated gzip file: {error}") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error


def decode(path: Path, data: bytes) -> str:
    """Returns the text; an error gives line, field and byte of what is not UTF-8."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line, column = place(data, error.start)
        what = f"not UTF-8: byte 0x{data[error.start]:02x} at offset {error.start} of the file"
        raise error_at(path, line, column, what) from error
    if "\0" in text:
        line, column = place(data, data.index(b"\0"))
        raise error_at(path, line, column, "NUL byte: this is not a text file")
    return text


def place(data: bytes, offset: int) -> tuple[int, int]:
    """Returns line and field of a byte, counted from 1."""
    line_start = data.rfind(b"\n", 0, offset) + 1
    return data.count(b"\n", 0, offset) + 1, data.count(b"\t", line_start, offset) + 1


def split_lines(path: Path, text: str) -> list[str]:
    """Splits at line feeds only: other separators, such as U+2028, are text."""
    if not text.strip():
        raise error_at(path, 1, 1, "the file is empty")
    lines = text.split("\n")
    if lines[-1] == "":
        lines.pop()
    return [line.removesuffix("\r") for line in lines]
