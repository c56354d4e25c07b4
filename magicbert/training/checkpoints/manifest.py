"""The manifest of a checkpoint: every file with size and sha256, written last."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from magicbert.errors import UserError
from magicbert.records import file_digest, read_record, write_record

MANIFEST = "manifest.json"
SCHEMA = "magicbert/checkpoint/1"


def describe_file(path: Path) -> dict[str, Any]:
    """Brings a file to the disk and returns its entry of the manifest."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    return {"name": path.name, "size": path.stat().st_size, "sha256": file_digest(path)}


def sync_folder(folder: Path) -> None:
    """Brings a folder's names to the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_manifest(folder: Path, files: list[dict[str, Any]], step: int) -> None:
    """Writes the manifest of a folder whose files stand."""
    write_record(folder / MANIFEST, SCHEMA, {"step": step, "files": files})
    sync_folder(folder)


def problem_of(folder: Path) -> str | None:
    """Returns what is wrong with a checkpoint; ``None`` = every byte is as it was written."""
    try:
        manifest = read_record(folder / MANIFEST, SCHEMA)
    except UserError as error:
        return str(error)
    for entry in manifest["files"]:
        path = folder / Path(entry["name"]).name
        if not path.is_file():
            return f"{path.name} is missing"
        if path.stat().st_size != entry["size"]:
            return f"{path.name} has {path.stat().st_size} bytes, not {entry['size']}"
        if file_digest(path) != entry["sha256"]:
            return f"{path.name} is damaged (its sha256 differs)"
    return None
