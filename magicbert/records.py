"""JSON files between stages: a schema, a digest, written whole or not at all."""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from pathlib import Path
from typing import Any

from magicbert.errors import UserError


def digest_of(payload: Any) -> str:
    """Returns the sha256 of the canonical JSON of ``payload``."""
    text = json.dumps(payload, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def file_digest(path: Path) -> str:
    """Returns the sha256 of a file's bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def sync(path: Path) -> None:
    """Brings a file's bytes, or a folder's names, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_text_atomically(path: Path, text: str) -> None:
    """Writes beside, fsyncs, renames: a reader sees the old file or the new one, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        with aside.open("w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


def write_record(path: Path, schema: str, payload: dict[str, Any]) -> None:
    """Writes ``payload`` as JSON with its schema name and digest.

    Args:
        path: file to write.
        schema: name and version, such as ``magicbert/architectures/1``.
        payload: JSON data without NaN.
    """
    # As JSON reads it back: names are text, tuples are lists; the digest must be of that.
    plain = json.loads(json.dumps(payload, allow_nan=False))
    record = {"schema": schema, "sha256": digest_of(plain), **plain}
    write_text_atomically(path, json.dumps(record, indent=2, allow_nan=False) + "\n")


def read_record(path: Path, schema: str) -> dict[str, Any]:
    """Returns the payload of a record after checking schema and digest.

    Raises:
        UserError: the file is missing, damaged, or of another schema.
    """
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file; run the stage that writes it first") from error
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: cannot be read as JSON: {error}") from error
    if not isinstance(record, dict) or record.get("schema") != schema:
        given = record.get("schema") if isinstance(record, dict) else type(record).__name__
        raise UserError(
            f"{path}: expected schema {schema}, found {given}; run the stage that writes it again"
        )
    payload = {name: value for name, value in record.items() if name not in ("schema", "sha256")}
    try:
        digest = digest_of(payload)
    except (ValueError, RecursionError) as error:  # NaN, text that no file can hold, depth
        raise UserError(f"{path}: holds what this program never writes: {error}") from error
    if digest != record.get("sha256"):
        raise UserError(f"{path}: damaged or edited by hand (its digest does not match)")
    return payload
