"""``magicbert bench TARGET``: measures beside peers, prints a table, writes a record."""

from __future__ import annotations

from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from magicbert.bench.engine.record import SCHEMA, open_record, record_file
from magicbert.bench.engine.running import play_as_rank, start_ranks
from magicbert.bench.engine.table import HEAD, load_range, table_rows
from magicbert.config.roots import BenchConfig
from magicbert.records import write_record
from magicbert.training.starting.environment import is_launched


def run(config: BenchConfig) -> None:
    """Measures what the record lacks; a run that was cut goes on with the same command."""
    if is_launched():
        play_as_rank(config)
        return
    start_ranks(config)
    record = open_record(record_file(config), config.engine)
    show(table_rows(record), HEAD)
    print(f"load average of the machine: {load_range(record)}")
    if config.publish:
        write_record(Path(config.publish), SCHEMA, record)
        print(f"record: {config.publish}")
    else:
        print(f"record: {record_file(config)}")


def show(rows: list[tuple[str, ...]], head: tuple[str, ...]) -> None:
    """Prints a table on a terminal, lines separated by tabs elsewhere."""
    console = Console(highlight=False, markup=False)
    if not console.is_terminal:
        for row in [head, *rows]:
            print("\t".join(row))
        return
    table = Table(*head, box=box.SIMPLE_HEAD)
    for row in rows:
        table.add_row(*row)
    console.print(table)
