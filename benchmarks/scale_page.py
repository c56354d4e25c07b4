"""Renews the table of docs/scale.md: what the paper's settings take, planned and never started.

    python benchmarks/scale_page.py

Every figure is of `magicbert VERB --plan` for a file of ``configs/base`` or ``configs/compressed``.
The words around the part between the two ``generated`` comments are written by hand.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from results_page import renew_page

from magicbert.cli import PLANNED, VERBS
from magicbert.config.plan_section import PlanSection
from magicbert.config.reading import load_config
from magicbert.config.roots import PrepareConfig
from magicbert.markdown import markdown_table
from magicbert.planning.plan import Plan, show_bytes
from magicbert.stages.plan import Planner

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "scale.md"
FOLDERS = ("base", "base-rtd", "compressed")
# In place of an architecture that is not known before: layers, hidden size and heads of the
# hand-made model of that size (NAS-BERT, table 3), by the label of the configuration.
STAND_INS = {"": (12, 768, 12), "60m": (10, 512, 8), "30m": (6, 512, 8), "10m": (6, 256, 4),
             "5m": (6, 128, 2)}  # fmt: skip
# Checkpoints are planned for a disk of this speed; the page shows their size alone.
DISK_MEGABYTES_PER_SECOND = 1000.0
SECONDS_PER_HOUR, TERA = 3600, 1e12
HEAD = (
    "configuration", "ranks", "parameters", "steps x rows x tokens", "tokens", "FLOPs of the run",
    "memory of a rank", "checkpoints", "GPU hours x TFLOP/s",
)  # fmt: skip


def generated() -> str:
    """Returns the table, a row per configuration that trains."""
    rows = [table_row(file) for file in planned_files()]
    return markdown_table(HEAD, rows)


def planned_files() -> list[Path]:
    """Returns the files of the folders that `--plan` is for, in order."""
    files = (file for folder in FOLDERS for file in sorted((ROOT / "configs" / folder).glob("*")))
    return [file for file in files if verb_of(file) in PLANNED]


def verb_of(file: Path) -> str:
    """Returns the verb that a file is for."""
    return file.stem.partition("-")[0]


def table_row(file: Path) -> tuple[str, ...]:
    """Returns the cells of one configuration."""
    config, plan = planned(file)
    training, length = config.training, config.model.max_length
    saved = plan.checkpoint.num_bytes
    kept = training.keep_checkpoints
    return (
        f"`{file.relative_to(ROOT)}`",
        f"{plan.num_ranks}",
        f"{plan.parameters / 1e6:,.1f} M",
        f"{plan.steps:,} x {training.rows_per_step:,} x {length}",
        f"{plan.tokens / 1e9:,.1f} G",
        f"{plan.run_flops:.3g}",
        show_bytes(plan.memory.peak),
        f"{kept} of {show_bytes(saved)}",
        f"{plan.run_flops / TERA / SECONDS_PER_HOUR:,.0f}",
    )


def prepare_file(folder: Path) -> Path:
    """Returns the preparation that a folder's stages follow; compressing follows the base's."""
    own = folder / "prepare.yaml"
    return own if own.is_file() else ROOT / "configs" / "base" / "prepare.yaml"


def planned(file: Path) -> tuple[Any, Plan]:
    """Returns a configuration and its plan on GPUs."""
    verb = verb_of(file)
    config = load_config(VERBS[verb].config, str(file), {})
    if verb == "retrain":
        num_layers, hidden_size, heads = STAND_INS[config.run.label]
        model = dataclasses.replace(config.model, hidden_size=hidden_size)
        chain = "-".join((f"mha{heads}", "ffn") * num_layers)
        config = dataclasses.replace(config, architecture=chain, model=model)
    prepare = load_config(PrepareConfig, str(prepare_file(file.parent)), {})
    options = PlanSection(
        device="cuda",
        vocab_size=prepare.tokenizer.vocab_size,
        length=config.model.max_length,
        disk_megabytes_per_second=DISK_MEGABYTES_PER_SECOND,
    )
    return config, Planner(verb, config, options).plan()


if __name__ == "__main__":
    renew_page(PAGE, generated())
