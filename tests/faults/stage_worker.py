"""What a forked process runs when a stage of the program is under test: its command line."""

from __future__ import annotations

import importlib
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import loop_worker  # noqa: F401 - imported for its own imports: a trial must not wait for them

from magicbert import cli
from magicbert.export import huggingface
from magicbert.training.starting.environment import accelerator

accelerator()
for name in ("prepare", "search", "retrain", "finetune", "export"):
    importlib.import_module(f"magicbert.stages.{name}")
importlib.import_module("transformers.trainer")
importlib.import_module("accelerate")


def run_stage(rank: int, num_ranks: int, folder: Path, arguments: Any) -> None:
    """Runs ``magicbert`` with the ``words`` given; leaves with its exit code."""
    if arguments["mutant"] == "in place":
        huggingface.atomic_folder = in_place
    cli.main(arguments["words"])


@contextmanager
def in_place(folder: Path) -> Iterator[Path]:
    """A mutant: the folder is emptied and written where it stands."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    yield folder
