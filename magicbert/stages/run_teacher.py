"""The teacher of a run: a model of ours that reads the run's prepared data."""

from __future__ import annotations

from pathlib import Path

from magicbert.bert.teacher import Teacher, load_teacher
from magicbert.config.sections import RunSection
from magicbert.data.manifest import read_manifest
from magicbert.trail import run_folder


def open_run_teacher(folder: str, run: RunSection) -> Teacher:
    """Loads a teacher.

    Raises:
        UserError: it cannot be loaded, there is no prepared data, or the two do not fit.
    """
    prepared = run_folder(run) / "prepare"
    manifest = read_manifest(prepared)
    return load_teacher(
        Path(folder),
        prepared / "tokenizer",
        digest=manifest.tokenizer_digest,
        length=manifest.length,
    )
