"""A small prepared corpus: the embedded English, made once per run folder."""

from __future__ import annotations

import shutil
from pathlib import Path

from magicbert.config.roots import PrepareConfig
from magicbert.config.sections import CorpusSection, MaskingSection, ShardSection, TokenizerSection
from magicbert.data.manifest import FILE_NAME
from magicbert.data.preparation import prepare
from magicbert.data.skipping import Skips
from magicbert.data.source import TokenSource
from magicbert.data.sources import resolve_sources

VOCAB_SIZE = 8192
LENGTH = 128


def prepared_corpus(folder: Path, *, max_documents: int = 0) -> Path:
    """Returns a folder as ``magicbert prepare`` writes it, with rows of 128 tokens.

    Args:
        folder: kept if it is complete.
        max_documents: fewer than there are make it faster; 0 = all.
    """
    if (folder / FILE_NAME).exists():
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    config = PrepareConfig(
        corpus=CorpusSection(sources=("embedded",), max_documents=max_documents),
        tokenizer=TokenizerSection(vocab_size=VOCAB_SIZE),
        shards=ShardSection(length=LENGTH, num_workers=1),
    )
    units = resolve_sources(config.corpus.sources, Skips("corpus.sources"))
    prepare(config, folder, units, [], [])
    return folder


def token_source(folder: Path, rows: int, seed: int) -> TokenSource:
    """Returns masked batches of so many rows."""
    return TokenSource(
        folder, MaskingSection(), seed=seed, rows_per_step=rows, rows_per_micro_batch=rows
    )
