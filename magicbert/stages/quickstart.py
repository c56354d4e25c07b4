"""quickstart: the whole chain in order, the same stages as ever, and what came out."""

from __future__ import annotations

import dataclasses
import importlib
import time
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from magicbert.config.reading import load_config
from magicbert.config.roots import (
    ExportConfig,
    FinetuneConfig,
    PrepareConfig,
    PretrainConfig,
    QuickstartConfig,
    ReportConfig,
    RetrainConfig,
    SearchConfig,
)
from magicbert.errors import ConfigError
from magicbert.report.reading import RunRecords, read_run, winner
from magicbert.trail import run_folder

CHAIN: dict[str, type[Any]] = {
    "prepare": PrepareConfig,
    "pretrain": PretrainConfig,
    "search": SearchConfig,
    "retrain": RetrainConfig,
    "export": ExportConfig,
    "finetune": FinetuneConfig,
    "report": ReportConfig,
}


def run(config: QuickstartConfig) -> None:
    """Runs every stage; a stage that has finished before says so and returns at once."""
    console = Console(highlight=False, markup=False, soft_wrap=True)
    configs = read_chain(config)
    started = time.monotonic()
    for number, (verb, stage_config) in enumerate(configs.items(), start=1):
        elapsed = time.strftime("%M:%S", time.gmtime(time.monotonic() - started))
        console.print(f"\n{number}/{len(configs)} {verb}  [{elapsed}]", style="bold")
        importlib.import_module(f"magicbert.stages.{verb}").run(stage_config)
    show_results(console, config, read_run(run_folder(config.run)))
    console.print(f"took {time.monotonic() - started:.0f} seconds")


def read_chain(config: QuickstartConfig) -> dict[str, Any]:
    """Reads the configuration of every stage, before any stage starts.

    Raises:
        ConfigError: with the problems of all files.
    """
    overrides = {
        f"run.{field.name}": getattr(config.run, field.name)
        for field in dataclasses.fields(config.run)
    }
    configs: dict[str, Any] = {}
    problems: list[str] = []
    for verb, kind in CHAIN.items():
        file = Path(config.configs) / f"{verb}.yaml"
        try:
            configs[verb] = load_config(kind, str(file), overrides)
        except ConfigError as error:
            problems.extend(f"{file.name}: {problem}" for problem in error.problems)
    if problems:
        raise ConfigError(config.configs, problems)
    return configs


def show_results(console: Console, config: QuickstartConfig, records: RunRecords) -> None:
    """Prints the figures of the run and where its results lie."""
    frame = box.ROUNDED if console.is_terminal else None
    table = Table(title=f"Run {records.name}", title_justify="left", show_header=False, box=frame)
    for name, value in result_rows(records):
        table.add_row(name, value)
    console.print()
    console.print(table)
    folder = run_folder(config.run)
    console.print(f"report: {folder / 'report.html'}")
    for name in records.exports:
        console.print(f"model:  {folder / name}/")


def result_rows(records: RunRecords) -> list[tuple[str, str]]:
    """Returns name and value of what a user wants to see first."""
    rows = []
    for record in records.finished("pretrain"):
        result = record.result or {}
        rows.append(("supernet, valid loss", f"{result['valid_loss']:.3f} nats per masked token"))
        rows.append(("  guessing by frequency", f"{result['unigram_entropy']:.3f} nats"))
    best = winner(records)
    if best is not None:
        rows.append(("winner", str(best["architecture"])))
        rows.append(("  parameters", f"{best['parameters']:,}"))
    for record in records.finished("retrain"):
        loss = (record.result or {})["valid_loss"]
        rows.append((f"{record.folder_name}, valid loss", f"{loss:.3f} nats per masked token"))
    for record in records.finished("finetune"):
        for row in (record.result or {})["summary"]:
            seeds = "1 seed" if row["num_seeds"] == 1 else f"median of {row['num_seeds']} seeds"
            name = f"{record.folder_name}, {row['task']}"
            rows.append((name, f"{row['metric']} {100 * row['median']:.1f} ({seeds})"))
    return rows
