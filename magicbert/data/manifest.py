"""``manifest.json``: what a prepared data set holds and where it came from."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from magicbert.errors import UserError
from magicbert.records import digest_of, file_digest, read_record, write_record

SCHEMA = "magicbert/prepare/1"
FILE_NAME = "manifest.json"
Split = Literal["train", "valid"]
SHARD_PATH = re.compile(r"(train|valid)/\d{5,}\.arrow")
SPLITS: tuple[Split, ...] = ("train", "valid")


@dataclass(frozen=True, slots=True)
class ShardFile:
    """One Arrow file of rows.

    Attributes:
        path: relative to the prepared folder, such as ``train/00000.arrow``.
        num_rows: rows in it.
        num_bytes: size of the file; a shorter one was truncated.
        sha256: digest of its bytes.
    """

    path: str
    num_rows: int
    num_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class SkippedItem:
    """Something of the corpus that was left out.

    Attributes:
        source: file or data set.
        reason: why, such as ``not UTF-8``.
        count: how many documents (or files) were left out for this reason.
        first: where the first one stands, such as ``byte 1204``; empty when the source is it.
    """

    source: str
    reason: str
    count: int
    first: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """A prepared data set.

    Attributes:
        vocab_size: rows an embedding table needs.
        length: tokens per row.
        layout: ``full`` or ``packed``.
        special_ids: every id that is never masked and never drawn as a replacement.
        num_rows: rows per split.
        num_tokens: tokens per split, without special tokens and padding.
        num_documents: kept documents per split.
        shards: files per split, in row order.
        tokenizer_digest: sha256 of ``tokenizer/tokenizer.json``.
        settings: resolved ``corpus``, ``tokenizer`` and ``shards`` sections.
        sources: identity of every source that was read, in order.
        skipped: what was left out and why.
        tokenizer_files: sha256 of every file in ``tokenizer/``.
    """

    vocab_size: int
    length: int
    layout: str
    pad_id: int
    cls_id: int
    sep_id: int
    mask_id: int
    special_ids: tuple[int, ...]
    num_rows: dict[str, int]
    num_tokens: dict[str, int]
    num_documents: dict[str, int]
    shards: dict[str, tuple[ShardFile, ...]]
    tokenizer_digest: str
    settings: dict[str, Any]
    sources: tuple[dict[str, Any], ...]
    skipped: tuple[SkippedItem, ...]
    tokenizer_files: dict[str, str] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """Digest of what training sees: tokenizer, layout and the bytes of every shard."""
        shards = {split: [file.sha256 for file in files] for split, files in self.shards.items()}
        return digest_of([self.tokenizer_digest, self.length, self.layout, shards])


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Writes ``manifest.json``; its presence says that the folder is complete."""
    payload = dataclasses.asdict(manifest) | {"digest": manifest.digest}
    write_record(folder / FILE_NAME, SCHEMA, payload)


def read_manifest(folder: Path) -> Manifest:
    """Reads and checks the manifest of a prepared folder.

    Raises:
        UserError: there is none, it is damaged, or a shard is missing or truncated.
    """
    if not (folder / FILE_NAME).exists():
        raise UserError(f"{folder}: no prepared data here; run `magicbert prepare` first")
    payload = read_record(folder / FILE_NAME, SCHEMA)
    try:
        digest = payload.pop("digest")
        manifest = from_payload(payload)
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{folder / FILE_NAME}: not a manifest: {error}") from error
    if manifest.digest != digest:
        raise UserError(f"{folder / FILE_NAME}: written by another version; run prepare again")
    _check_sizes(folder, manifest)
    tokenizer = folder / "tokenizer" / "tokenizer.json"
    if tokenizer.is_file() and file_digest(tokenizer) != manifest.tokenizer_digest:
        raise UserError(f"{tokenizer}: damaged; remove {folder} and run `magicbert prepare` again")
    return manifest


def from_payload(payload: dict[str, Any]) -> Manifest:
    """Returns the manifest that a record holds."""
    plain = dict(payload)
    plain["special_ids"] = tuple(plain["special_ids"])
    plain["sources"] = tuple(plain["sources"])
    plain["skipped"] = tuple(SkippedItem(**item) for item in plain["skipped"])
    plain["shards"] = {
        split: tuple(ShardFile(**file) for file in files)
        for split, files in plain["shards"].items()
    }
    return Manifest(**plain)


def _check_sizes(folder: Path, manifest: Manifest) -> None:
    for files in manifest.shards.values():
        for file in files:
            path = folder / file.path
            if not SHARD_PATH.fullmatch(file.path):
                raise UserError(f"{folder / FILE_NAME}: {file.path!r} is not the path of a shard")
            found = path.stat().st_size if path.is_file() else None
            if found != file.num_bytes:
                state = "missing" if found is None else f"{found} bytes long"
                raise UserError(
                    f"{path}: {state}, the manifest says {file.num_bytes} bytes; "
                    "remove the prepare folder and run `magicbert prepare` again"
                )
