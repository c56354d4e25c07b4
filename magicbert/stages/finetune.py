"""``magicbert finetune``: one model, several tasks, a grid of learning rates and seeds."""

from __future__ import annotations

import logging

import transformers
from rich.console import Console

from magicbert.config.roots import FinetuneConfig
from magicbert.finetune.grid import Grid
from magicbert.finetune.pretrained import find_pretrained, load_tokenizer
from magicbert.finetune.results import summary_table
from magicbert.finetune.task_data import find_all_tasks, read_jobs
from magicbert.run_lock import alone_in
from magicbert.trail import Trail, stage_folder

LOGGER = logging.getLogger("magicbert")


def run(config: FinetuneConfig) -> None:
    """Fine-tunes, and writes ``results.json`` and ``predictions/`` in the stage's folder.

    Raises:
        UserError: a task, a file or the model is wrong; found before anything is trained.
    """
    quieten_transformers()
    settings = config.finetune
    folder = stage_folder(config.run, "finetune")
    tasks = find_all_tasks(settings.tasks, mnli_first=settings.mnli_warm_start)
    start = find_pretrained(config)
    tokenizer = load_tokenizer(start)
    jobs = read_jobs(tasks, config, folder, start, tokenizer)
    grid = Grid(folder, settings, start, tokenizer, jobs)
    with alone_in(folder), Trail(folder, config) as trail:
        for job in jobs:
            LOGGER.info("%s: %d training rows from %s", job.name, job.num_train, job.source)
        summary = grid.run(trail)
        Console().print(summary_table(f"Fine-tuning of {start.name}, dev scores x 100", summary))
        if grid.is_finished:
            LOGGER.info("results: %s", folder / "results.json")
            return
        LOGGER.info(
            "stopped after finetune.max_minutes = %g with %d of %d cells done; run the same "
            "command again to go on: finished cells are kept",
            settings.max_minutes, len(grid.rows), grid.num_cells,
        )  # fmt: skip


def quieten_transformers() -> None:
    """Keeps transformers' bars and its remarks on new heads out of the log."""
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
