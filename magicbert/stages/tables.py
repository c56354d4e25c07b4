"""Tables for whoever started a stage: drawn on a terminal, lines with tabs elsewhere."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table


def show_table(head: Sequence[str], rows: Sequence[Sequence[str]], title: str = "") -> None:
    """Prints a table.

    Args:
        head: names of the columns.
        rows: as many cells each.
        title: line above; empty = none.
    """
    console = Console(highlight=False, markup=False)
    if not console.is_terminal:
        if title:
            print(title)
        for row in [head, *rows]:
            print("\t".join(row))
        return
    table = Table(*head, title=title or None, title_justify="left", box=box.SIMPLE_HEAD)
    for row in rows:
        table.add_row(*row)
    console.print(table)
