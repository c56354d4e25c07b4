"""``magicbert bench TARGET``: measures beside peers, prints a table, writes a record."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from magicbert.config.roots import BenchConfig
from magicbert.records import write_record
from magicbert.stages.tables import show_table
from magicbert.trail import stage_folder

if TYPE_CHECKING:
    from magicbert.bench.suite import Suite


def run(config: BenchConfig) -> None:
    """Measures what the record lacks; a run that was cut goes on with the same command."""
    special = {"engine": run_engine, "kernels": run_kernels, "search": run_search}
    special.get(config.target, run_alone)(config)


def run_engine(config: BenchConfig) -> None:
    """Measures a step of a supernet against a step of only its path."""
    # Each target brings its own packages: kernels are measured where there is no DeepSpeed.
    from magicbert.bench.engine.record import SCHEMA, open_record, record_file
    from magicbert.bench.engine.running import play_as_rank, start_ranks
    from magicbert.bench.engine.table import HEAD, load_range, table_rows
    from magicbert.training.starting.environment import is_launched

    if is_launched():
        play_as_rank(config)
        return
    start_ranks(config)
    record = open_record(record_file(config), config.engine)
    show_table(HEAD, table_rows(record))
    print(f"load average of the machine: {load_range(record)}")
    if config.publish:
        write_record(Path(config.publish), SCHEMA, record)
    print(f"record: {config.publish or record_file(config)}")


def run_kernels(config: BenchConfig) -> None:
    """Measures kernels, or compiles or tunes them."""
    if config.kernels.aot:
        run_compilations(config)
        return
    from magicbert.bench.kernels.suite import kernel_suite, tune_kernels

    if config.kernels.tune:
        tune_kernels(config)
    run_suite_target(kernel_suite(config), config)


def run_search(config: BenchConfig) -> None:
    """Measures how paths are scored; there is no training, so nothing of DeepSpeed is needed."""
    from magicbert.bench.search.suite import search_suite

    run_suite_target(search_suite(config), config)


def run_compilations(config: BenchConfig) -> None:
    """Compiles every kernel for GPUs that need not be there, and shows what it uses."""
    from magicbert.bench.kernels.resources import FILE, HEAD, SCHEMA, compiled_record, origin
    from magicbert.bench.kernels.resources import table_rows as resource_rows

    record = compiled_record()
    show_table(HEAD, resource_rows(record))
    print(f"\n{origin(record)}")
    file = Path(config.publish) if config.publish else stage_folder(config.run, "bench") / FILE
    write_record(file, SCHEMA, record)
    print(f"record: {file}")


def run_alone(config: BenchConfig) -> None:
    """Measures training steps, or the way of the data to them, in this process as the only rank."""
    if config.measure.device == "cpu":
        os.environ["DS_ACCELERATOR"] = "cpu"
    # DeepSpeed reports every engine it builds.
    os.environ.setdefault("DEEPSPEED_LOG_LEVEL", "error")
    from magicbert.training.starting.environment import (
        accelerator,
        join_process_group,
        single_rank,
    )

    accelerator()  # settles which device DeepSpeed uses, before anything asks it
    if config.target == "step":
        from magicbert.bench.step.suite import step_suite as chosen_suite
    elif config.target == "interference":
        from magicbert.bench.interference.suite import interference_suite as chosen_suite
    else:
        from magicbert.bench.data.suite import data_suite as chosen_suite
    suite = chosen_suite(config)
    with single_rank():
        join_process_group()
        run_suite_target(suite, config)


def run_suite_target(suite: Suite, config: BenchConfig) -> None:
    """Runs a target that is a list of cases, and shows its tables."""
    from magicbert.bench.suite import record_file, run_suite
    from magicbert.bench.suite_record import SCHEMA
    from magicbert.bench.suite_table import origin, tables

    record = run_suite(suite, config)
    for table in tables(record):
        print(f"\n{table.title}")
        show_table(table.head, table.lines)
        for name, reason in table.absent.items():
            print(f"not timed: {name}: {reason}")
    print(f"\n{origin(record)}")
    if config.publish:
        write_record(Path(config.publish), SCHEMA, record)
    print(f"record: {config.publish or record_file(suite, config)}")
