"""Prepared data is read as it was written: every byte is checked before anything opens a file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from magicbert.data.manifest import Manifest, read_manifest
from magicbert.errors import UserError
from magicbert.records import file_digest


def verify_prepared(folder: Path, manifest: Manifest | None = None) -> None:
    """Compares tokenizer and rows with the manifest.

    Damaged rows would train a wrong model in silence, and Arrow's reader can crash on them.

    Args:
        folder: what ``magicbert prepare`` wrote.
        manifest: its manifest, if it was read already.

    Raises:
        UserError: names the file that is missing or damaged.
    """
    manifest = manifest or read_manifest(folder)
    verify_tokenizer(folder, manifest)
    for files in manifest.shards.values():
        verify_files(folder, {file.path: file.sha256 for file in files})


def verify_tokenizer(folder: Path, manifest: Manifest) -> None:
    """Compares the tokenizer of a prepared folder with the manifest; raises as above."""
    digests = manifest.tokenizer_files or {"tokenizer.json": manifest.tokenizer_digest}
    verify_files(folder, {f"tokenizer/{name}": digest for name, digest in digests.items()})


def verify_files(folder: Path, digests: Mapping[str, str]) -> None:
    """Compares files with their digests; raises as above."""
    for name, digest in digests.items():
        path = folder / name
        if not path.is_file() or file_digest(path) != digest:
            state = "damaged" if path.is_file() else "missing"
            raise UserError(f"{path}: {state}; remove {folder} and run `magicbert prepare` again")
