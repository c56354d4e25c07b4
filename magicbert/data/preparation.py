"""Raw text -> tokenizer, rows and manifest: the steps of ``magicbert prepare``.

Everything is made in ``work/`` and moved to its place at the end; the manifest comes last and
says that the folder is complete. After a stop the same command reads the corpus once again and
goes on from the tokenizer and the token pieces that stand in ``work/``.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from magicbert.config.reading import to_tree
from magicbert.config.roots import PrepareConfig
from magicbert.data.manifest import (
    SPLITS,
    Manifest,
    ShardFile,
    SkippedItem,
    write_manifest,
)
from magicbert.data.pieces import Piece, encode_pieces, plan_pieces, read_piece
from magicbert.data.rows import RowFormat, build_rows
from magicbert.data.selection import tokenizer_sample
from magicbert.data.shards import ShardWriter, token_type
from magicbert.data.skipping import NO_TOKENS, log_skipped
from magicbert.data.sources import CorpusUnit
from magicbert.data.survey import TRAIN, VALID, Survey, survey_corpus
from magicbert.data.tokenizer import TextTokenizer, read_tokenizer, save_tokenizer
from magicbert.data.tokenizer_loading import load_tokenizer
from magicbert.data.tokenizer_training import train_tokenizer
from magicbert.data.workers import worker_count
from magicbert.errors import UserError
from magicbert.faults import fault
from magicbert.records import digest_of, file_digest, read_record, write_record

LOGGER = logging.getLogger("magicbert")
TOKENIZER_SCHEMA = "magicbert/tokenizer/1"


@dataclass(frozen=True)
class WrittenSplit:
    """The rows of one split.

    Attributes:
        files: its shards.
        num_tokens: tokens without special ones and padding.
        num_documents: documents with at least one token.
        num_without_tokens: documents that gave none.
    """

    files: tuple[ShardFile, ...]
    num_tokens: int
    num_documents: int
    num_without_tokens: int


def prepare(
    config: PrepareConfig,
    folder: Path,
    train_units: Sequence[CorpusUnit],
    valid_units: Sequence[CorpusUnit],
    skipped: Sequence[SkippedItem],
) -> Manifest:
    """Prepares a folder that has no manifest yet.

    Args:
        config: what to do.
        folder: where to.
        train_units: what to read.
        valid_units: held-out units, if they are given apart.
        skipped: what was left out when the sources were resolved.

    Raises:
        UserError: bad input; nothing but ``work/`` is then left behind.
    """
    num_workers = worker_count(config.shards.num_workers)
    LOGGER.info("reading %d sources", len(train_units) + len(valid_units))
    survey = survey_corpus(train_units, valid_units, config.corpus, num_workers=num_workers)
    log_skipped((*skipped, *survey.skipped))
    LOGGER.info(
        "train %d documents (%.1f MB), valid %d (%.1f MB)",
        survey.kept_documents(TRAIN), survey.kept_bytes(TRAIN) / 1e6,
        survey.kept_documents(VALID), survey.kept_bytes(VALID) / 1e6,
    )  # fmt: skip
    work = folder / "work"
    work.mkdir(parents=True, exist_ok=True)
    tokenizer_digest = make_tokenizer(config, survey, work)
    pieces = plan_pieces(survey, tokenizer_digest, work / "pieces")
    tokenizer_folder = work / "tokenizer"
    encode_pieces(pieces, survey, config.corpus, tokenizer_folder, num_workers=num_workers)
    tokenizer = read_tokenizer(tokenizer_folder)
    splits: dict[str, WrittenSplit] = {
        split: write_split(config, tokenizer, pieces, split, work) for split in SPLITS
    }
    manifest = describe(config, survey, skipped, tokenizer, file_digests(tokenizer_folder), splits)
    publish(work, folder, manifest)
    return manifest


def settings_of(config: PrepareConfig) -> dict[str, Any]:
    """Returns the settings that change the result; the number of workers does not."""
    tree = to_tree(config)
    del tree["shards"]["num_workers"]
    return {name: tree[name] for name in ("corpus", "tokenizer", "shards")}


def make_tokenizer(config: PrepareConfig, survey: Survey, work: Path) -> str:
    """Loads or trains the tokenizer into ``work/tokenizer``; returns its digest."""
    section = config.tokenizer
    folder, record = work / "tokenizer", work / "tokenizer.json"
    is_trained = survey.fates == TRAIN
    key = digest_of([
        settings_of(config)["tokenizer"], config.shards.length,
        survey.digests[is_trained].tobytes().hex() if section.kind != "load" else "",
    ])  # fmt: skip
    known = finished_tokenizer(folder, record, key)
    if known is not None and section.kind != "load":
        LOGGER.info("tokenizer: trained before, reused")
        return known
    if section.kind == "load":
        tokenizer = load_tokenizer(section)
    else:
        sample = tokenizer_sample(survey, config.corpus, section.sample_megabytes * 10**6)
        num_bytes = sum(map(len, sample))
        LOGGER.info("tokenizer: training %s on %.1f MB", section.kind, num_bytes / 1e6)
        tokenizer = train_tokenizer(section, sample)
    digest = save_tokenizer(tokenizer, folder, max_length=config.shards.length)
    write_record(record, TOKENIZER_SCHEMA, {"key": key, "file_sha256": digest})
    LOGGER.info("tokenizer: %d tokens", tokenizer.vocab_size)
    return digest


def finished_tokenizer(folder: Path, record: Path, key: str) -> str | None:
    """Returns the digest of a tokenizer that an earlier start left, if it is the one wanted."""
    try:
        known = read_record(record, TOKENIZER_SCHEMA)
        digest = file_digest(folder / "tokenizer.json")
    except (UserError, OSError):
        return None
    return digest if known == {"key": key, "file_sha256": digest} else None


def write_split(
    config: PrepareConfig, tokenizer: TextTokenizer, pieces: list[Piece], split: str, work: Path
) -> WrittenSplit:
    """Lays the documents of one split out in rows."""
    builder = build_rows(config.shards.layout, row_format(config.shards.length, tokenizer))
    shutil.rmtree(work / split, ignore_errors=True)
    writer = ShardWriter(work, split, rows_per_shard=config.shards.rows_per_shard)
    num_tokens = num_documents = num_without_tokens = 0
    for piece in pieces:
        ids, lengths = read_piece(piece, valid=split == "valid")
        writer.add(builder.add(ids, lengths))
        num_tokens += len(ids)
        num_documents += int((lengths > 0).sum())
        num_without_tokens += int((lengths == 0).sum())
    writer.add(builder.finish())
    files = writer.finish()
    if not files:
        raise UserError(f"corpus: the {split} split gave no tokens")
    return WrittenSplit(files, num_tokens, num_documents, num_without_tokens)


def row_format(length: int, tokenizer: TextTokenizer) -> RowFormat:
    """Returns the format of rows under a tokenizer."""
    return RowFormat(
        length=length,
        pad_id=tokenizer.id_of("pad"),
        cls_id=tokenizer.id_of("cls"),
        sep_id=tokenizer.id_of("sep"),
        type=token_type(tokenizer.vocab_size),
    )


def describe(
    config: PrepareConfig,
    survey: Survey,
    skipped: Sequence[SkippedItem],
    tokenizer: TextTokenizer,
    tokenizer_files: dict[str, str],
    splits: dict[str, WrittenSplit],
) -> Manifest:
    """Returns the manifest."""
    no_tokens = sum(split.num_without_tokens for split in splits.values())
    items = [*skipped, *survey.skipped]
    items += [SkippedItem("corpus", NO_TOKENS, no_tokens, "")] if no_tokens else []
    return Manifest(
        vocab_size=tokenizer.vocab_size,
        length=config.shards.length,
        layout=config.shards.layout,
        pad_id=tokenizer.id_of("pad"),
        cls_id=tokenizer.id_of("cls"),
        sep_id=tokenizer.id_of("sep"),
        mask_id=tokenizer.id_of("mask"),
        special_ids=tokenizer.special_ids(),
        num_rows={
            name: sum(file.num_rows for file in split.files) for name, split in splits.items()
        },
        num_tokens={name: split.num_tokens for name, split in splits.items()},
        num_documents={name: split.num_documents for name, split in splits.items()},
        shards={name: split.files for name, split in splits.items()},
        tokenizer_digest=tokenizer_files["tokenizer.json"],
        settings=settings_of(config),
        sources=tuple(unit.identity() for unit in survey.units),
        skipped=tuple(items),
        tokenizer_files=tokenizer_files,
    )


def publish(work: Path, folder: Path, manifest: Manifest) -> None:
    """Moves tokenizer and rows to their place, writes the manifest, removes ``work/``."""
    for name in ("tokenizer", *SPLITS):
        shutil.rmtree(folder / name, ignore_errors=True)
        (work / name).rename(folder / name)
        fault("prepare.shard")
    write_manifest(folder, manifest)
    fault("prepare.shard")
    shutil.rmtree(work)


def file_digests(folder: Path) -> dict[str, str]:
    """Returns the sha256 of every file in a flat folder."""
    return {path.name: file_digest(path) for path in sorted(folder.iterdir())}
