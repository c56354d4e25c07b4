"""``magicbert prepare``: raw text -> tokenizer, packed rows and a manifest."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Sequence
from pathlib import Path

from magicbert.config.roots import PrepareConfig
from magicbert.data.manifest import Manifest
from magicbert.data.preparation import prepare
from magicbert.data.prepared import find_prepared
from magicbert.data.skipping import Skips
from magicbert.data.sources import CorpusUnit, resolve_sources
from magicbert.run_lock import alone_in
from magicbert.trail import Trail, run_folder

LOGGER = logging.getLogger("magicbert")


def run(config: PrepareConfig) -> None:
    """Prepares the run's data, or says that it already stands."""
    folder = run_folder(config.run) / "prepare"
    skips = Skips("corpus.sources")
    valid_units = resolve_sources(config.corpus.valid_sources, skips)
    train_units = resolve_sources(config.corpus.sources, skips)
    with alone_in(folder):
        prepare_in(folder, config, train_units, valid_units, skips)


def prepare_in(
    folder: Path,
    config: PrepareConfig,
    train_units: Sequence[CorpusUnit],
    valid_units: Sequence[CorpusUnit],
    skips: Skips,
) -> None:
    """Prepares a folder that no other process works in."""
    manifest = find_prepared(config, folder, [*valid_units, *train_units])
    if manifest is not None:
        shutil.rmtree(folder / "work", ignore_errors=True)  # of a kill after the manifest
        LOGGER.info("%s: already prepared with these settings and sources", folder)
        summarise(manifest)
        return
    with Trail(folder, config) as trail:
        manifest = prepare(config, folder, train_units, valid_units, skips.items())
        trail.record(
            "prepared",
            digest=manifest.digest,
            rows=manifest.num_rows,
            tokens=manifest.num_tokens,
            documents=manifest.num_documents,
        )
        summarise(manifest)


def summarise(manifest: Manifest) -> None:
    """Logs what was prepared."""
    for split, num_rows in manifest.num_rows.items():
        LOGGER.info(
            "%s: %d documents, %d tokens, %d rows of %d",
            split, manifest.num_documents[split], manifest.num_tokens[split], num_rows,
            manifest.length,
        )  # fmt: skip
    LOGGER.info("vocabulary: %d; digest %s", manifest.vocab_size, manifest.digest[:16])
