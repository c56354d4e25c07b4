"""JSONL and Parquet -> documents: one record, one document."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from magicbert.data.plain_text import lines_of
from magicbert.data.skipping import Skips
from magicbert.errors import UserError

MAX_LINE_BYTES = 256 << 20
ROWS_PER_BATCH = 1024


def jsonl_documents(stream: BinaryIO, field: str, skips: Skips) -> Iterator[str]:
    """Yields the text of each line's object; blank lines are no records.

    Raises:
        UserError: naming file and line, when one is not a JSON object with text in ``field``.
    """
    for number, line in enumerate(lines_of(stream, skips.source, MAX_LINE_BYTES), start=1):
        where = f"{skips.source}:{number}"
        if len(line) >= MAX_LINE_BYTES:
            raise UserError(f"{where}: longer than {MAX_LINE_BYTES >> 20} MiB")
        if not line.strip():
            continue
        try:
            record = json.loads(line.decode("utf-8-sig"), object_pairs_hook=_distinct)
            text = _field(record, field, where)
            text.encode("utf-8")  # an escaped lone surrogate has no UTF-8 form
        except UnicodeError:
            skips.bad_utf8(f"line {number}")
        except (ValueError, RecursionError) as error:
            raise UserError(f"{where}: not JSON: {error}") from error
        else:
            yield text


def parquet_documents(stream: BinaryIO, field: str, skips: Skips) -> Iterator[str]:
    """Yields the text of each row, a bounded number of rows in memory.

    Raises:
        UserError: the file is damaged, has no such column of text, or holds a null in it.
    """
    try:
        file = pq.ParquetFile(stream)
        _check_column(file.schema_arrow, field, skips.source)
        row = 0
        for batch in file.iter_batches(batch_size=ROWS_PER_BATCH, columns=[field]):
            for value in batch.column(0):
                row += 1
                try:
                    text = value.as_py()
                except UnicodeDecodeError:
                    skips.bad_utf8(f"row {row}")
                    continue
                if text is None:
                    raise UserError(f"{skips.source}: row {row}: {field!r} is null")
                yield text
    except pa.ArrowException as error:
        raise UserError(f"{skips.source}: not a readable Parquet file: {error}") from error


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Builds an object; ``json`` would keep the last of two texts of one name, in silence."""
    record = dict(pairs)
    if len(record) < len(pairs):
        raise ValueError("a field is given twice")
    return record


def _field(record: Any, field: str, where: str) -> str:
    if not isinstance(record, dict):
        raise UserError(f"{where}: not an object, got {type(record).__name__}")
    if field not in record:
        fields = ", ".join(record) or "none"
        raise UserError(f"{where}: no field {field!r} (has {fields}); set corpus.text_field")
    text = record[field]
    if not isinstance(text, str):
        raise UserError(f"{where}: field {field!r} must be text, got {type(text).__name__}")
    return text


def _check_column(schema: pa.Schema, field: str, source: str) -> None:
    if field not in schema.names:
        raise UserError(
            f"{source}: no column {field!r} (has {', '.join(schema.names)}); set corpus.text_field"
        )
    kind = schema.field(field).type
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        raise UserError(f"{source}: column {field!r} must hold text, it holds {kind}")
