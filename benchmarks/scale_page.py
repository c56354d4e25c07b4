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
from magicbert.planning.blocks import BlocksPlan, SelectPlan
from magicbert.planning.plan import Plan, show_bytes
from magicbert.stages.plan import Planner
from magicbert.stages.plan_compress import plan_of

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "scale.md"
FOLDERS = ("base", "base-rtd", "compressed")
# In place of an architecture that is not known before: layers, hidden size and heads of the
# hand-made model of that size (NAS-BERT, table 3), by the label of the configuration.
STAND_INS = {"": (12, 768, 12), "60m": (10, 512, 8), "30m": (6, 512, 8), "10m": (6, 256, 4),
             "5m": (6, 128, 2)}  # fmt: skip
# Checkpoints are planned for a disk of this speed; the page shows their size alone.
DISK_MEGABYTES_PER_SECOND = 1000.0
# Tokens of a row that blocks are trained on, as those of the other configurations.
LENGTH = 512
SECONDS_PER_HOUR, TERA = 3600, 1e12
HEAD = (
    "configuration", "ranks", "parameters", "steps x rows x tokens", "tokens", "FLOPs of the run",
    "memory of a rank", "checkpoints", "GPU hours x TFLOP/s",
)  # fmt: skip


CHOICE_HEAD = (
    "configuration", "models in the tables", "evaluated", "rows each", "FLOPs, nothing shared",
    "memory",
)  # fmt: skip
# The compression's teacher, in place of one that is not there: BERT-base.
TEACHER = {"teacher_layers": 12, "teacher_width": 768}


def generated() -> str:
    """Returns two tables: a row per configuration that trains, and per choice of models."""
    plans = {file: planned(file) for file in planned_files()}
    trained = [table_row(f, *one) for f, one in plans.items() if not is_choice(one[1])]
    chosen = [choice_row(f, one[1]) for f, one in plans.items() if is_choice(one[1])]
    return f"{markdown_table(HEAD, trained)}\n\n{markdown_table(CHOICE_HEAD, chosen)}"


def is_choice(plan: Plan | BlocksPlan | SelectPlan) -> bool:
    """Whether a plan is that of `compress select`, which trains nothing."""
    return isinstance(plan, SelectPlan)


def planned_files() -> list[Path]:
    """Returns the files of the folders that `--plan` is for, in order."""
    files = (file for folder in FOLDERS for file in sorted((ROOT / "configs" / folder).glob("*")))
    return [file for file in files if verb_of(file) in PLANNED]


def verb_of(file: Path) -> str:
    """Returns the verb that a file is for."""
    return file.stem.partition("-")[0]


def table_row(file: Path, config: Any, plan: Plan | BlocksPlan) -> tuple[str, ...]:
    """Returns the cells of one configuration."""
    training = config.training
    if isinstance(plan, BlocksPlan):
        blocks, length = len(plan.block_flops), LENGTH
        steps = f"{blocks} blocks: {plan.steps:,}"
        saved = f"{blocks} of {show_bytes(max(plan.checkpoint_bytes))}"
    else:
        steps, length = f"{plan.steps:,}", config.model.max_length
        saved = f"{training.keep_checkpoints} of {show_bytes(plan.checkpoint.num_bytes)}"
    return (
        f"`{file.relative_to(ROOT)}`",
        f"{plan.num_ranks}",
        f"{plan.parameters / 1e6:,.1f} M",
        f"{steps} x {training.rows_per_step:,} x {length}",
        f"{plan.tokens / 1e9:,.1f} G",
        f"{plan.run_flops:.3g}",
        show_bytes(plan.memory.peak),
        saved,
        f"{plan.run_flops / TERA / SECONDS_PER_HOUR:,.0f}",
    )


def choice_row(file: Path, plan: SelectPlan) -> tuple[str, ...]:
    """Returns the cells of one choice of models."""
    return (
        f"`{file.relative_to(ROOT)}`",
        f"{plan.models:,}",
        f"{plan.evaluated:,}",
        f"{plan.rows:,}",
        f"{plan.flops:.3g}",
        show_bytes(plan.peak),
    )


def prepare_file(folder: Path) -> Path:
    """Returns the preparation that a folder's stages follow; compressing follows the base's."""
    own = folder / "prepare.yaml"
    return own if own.is_file() else ROOT / "configs" / "base" / "prepare.yaml"


def planned(file: Path) -> tuple[Any, Plan | BlocksPlan | SelectPlan]:
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
        length=LENGTH if verb == "compress" else config.model.max_length,
        disk_megabytes_per_second=DISK_MEGABYTES_PER_SECOND,
    )
    if verb == "compress":
        return config, plan_of(config, dataclasses.replace(options, **TEACHER))
    if verb == "retrain" and config.distillation.teacher:
        options = dataclasses.replace(options, **TEACHER)
    return config, Planner(verb, config, options).plan()


if __name__ == "__main__":
    renew_page(PAGE, generated())
