"""quickstart: the whole chain in order, the same stages as ever, and what came out."""

from __future__ import annotations

import importlib
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from magicbert.config.reading import load_config
from magicbert.config.roots import (
    AnalyzeConfig,
    ExportConfig,
    FinetuneConfig,
    PrepareConfig,
    PretrainConfig,
    QuickstartConfig,
    ReportConfig,
    RetrainConfig,
    SearchConfig,
)
from magicbert.config.sections import RunSection
from magicbert.errors import ConfigError
from magicbert.records import read_record
from magicbert.report.reading import RESULTS, RunRecords, read_run, winner
from magicbert.trail import run_folder, stage_folder

CHAIN: dict[str, type[Any]] = {
    "prepare": PrepareConfig,
    "pretrain": PretrainConfig,
    "analyze": AnalyzeConfig,
    "search": SearchConfig,
    "retrain": RetrainConfig,
    "export": ExportConfig,
    "finetune": FinetuneConfig,
    "report": ReportConfig,
}
# The stages that each retrained model passes on its own.
LABELLED = ("retrain", "export", "finetune")
# The stages that a folder may leave out, and those that stop at a time limit.
OPTIONAL = ("analyze",)
TIMED = ("pretrain", "retrain")


def run(config: QuickstartConfig) -> None:
    """Runs every stage; one that has finished before says so and returns at once.

    A stage that stops at its time limit ends the chain; the same command goes on from there.
    """
    console = Console(highlight=False, markup=False, soft_wrap=True)
    chain = read_chain(config)
    started = time.monotonic()
    for number, (verb, stage_config) in enumerate(chain, start=1):
        elapsed = time.strftime("%M:%S", time.gmtime(time.monotonic() - started))
        name = f"{verb} {stage_config.run.label}".rstrip()
        console.print(f"\n{number}/{len(chain)} {name}  [{elapsed}]", style="bold")
        importlib.import_module(f"magicbert.stages.{verb}").run(stage_config)
        if not is_finished(verb, stage_config.run):
            console.print(f"\n{name} is not finished: give the same command again to go on")
            return
    show_results(console, config, read_run(run_folder(config.run)))
    console.print(f"took {time.monotonic() - started:.0f} seconds")


def read_chain(config: QuickstartConfig) -> list[tuple[str, Any]]:
    """Reads the configuration of every stage, before any stage starts.

    A folder with files ``retrain-LABEL.yaml`` trains several models: each of them is retrained,
    exported and fine-tuned under its label.

    Raises:
        ConfigError: with the problems of all files.
    """
    chain: list[tuple[str, Any]] = []
    problems: list[str] = []
    for verb, label in planned_stages(config):
        own_file = Path(config.configs) / f"{verb}-{label}.yaml"
        file = own_file if own_file.is_file() else own_file.with_name(f"{verb}.yaml")
        overrides = {"run.root": config.run.root, "run.name": config.run.name, "run.label": label}
        try:
            chain.append((verb, load_config(CHAIN[verb], str(file), overrides)))
        except ConfigError as error:
            problems.extend(f"{file.name}: {problem}" for problem in error.problems)
    if problems:
        raise ConfigError(config.configs, list(dict.fromkeys(problems)))
    return chain


def planned_stages(config: QuickstartConfig) -> Iterator[tuple[str, str]]:
    """Yields verb and label of every stage in the order of the chain."""
    files = Path(config.configs).glob("retrain-*.yaml")
    labels = sorted(file.stem.removeprefix("retrain-") for file in files)
    for verb in CHAIN:
        if verb in OPTIONAL and not (Path(config.configs) / f"{verb}.yaml").is_file():
            continue
        if labels and verb in LABELLED:
            yield from ((verb, label) for label in labels)
        else:
            yield verb, config.run.label


def is_finished(verb: str, run: RunSection) -> bool:
    """Returns whether a stage came to its end; one with a time limit may have stopped before."""
    if verb not in TIMED:
        return True
    file, schema = RESULTS[verb]
    return bool(read_record(stage_folder(run, verb) / file, schema)["finished"])


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
        rows.append(("supernet, valid loss", nats(result)))
    best = winner(records)
    if best is not None:
        rows.append(("winner", str(best["architecture"])))
        rows.append(("  parameters", f"{best['parameters']:,}"))
    for record in records.finished("retrain"):
        rows.append((f"{record.folder_name}, valid loss", nats(record.result or {})))
    for record in records.finished("finetune"):
        for row in (record.result or {})["summary"]:
            seeds = "1 seed" if row["num_seeds"] == 1 else f"median of {row['num_seeds']} seeds"
            name = f"{record.folder_name}, {row['task']}"
            rows.append((name, f"{row['metric']} {100 * row['median']:.1f} ({seeds})"))
    return rows


def nats(result: Mapping[str, Any]) -> str:
    """Returns a training's loss with what it is a mean over."""
    term = "token" if result.get("objective") == "rtd" else "masked token"
    return f"{result['valid_loss']:.3f} nats per {term}"
