"""What a forked process runs when a stage of the program is under test: its command line."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import loop_worker  # noqa: F401 - imported for its own imports: a trial must not wait for them

from magicbert import cli
from magicbert.training.environment import accelerator

accelerator()
for name in ("prepare", "search", "retrain", "finetune", "export"):
    importlib.import_module(f"magicbert.stages.{name}")
importlib.import_module("transformers.trainer")
importlib.import_module("accelerate")


def run_stage(rank: int, num_ranks: int, folder: Path, arguments: Any) -> None:
    """Runs ``magicbert`` with the words given; leaves with its exit code."""
    cli.main(arguments)
