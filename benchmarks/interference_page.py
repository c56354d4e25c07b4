"""Turns examined supernets into docs/results/interference.

    python benchmarks/interference_page.py runs/rank-fidelity docs/results/interference

writes ``interference.json`` (a row per supernet), ``interference-*.svg``, and renews the part of
``interference.md`` between the two ``generated`` comments. Words around that part are written by
hand; no figure is.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path

from interference_plots import likeness_plot, method_curves, size_curves
from interference_records import METHODS, Examined, examined, main_size
from interference_tables import likeness_table, method_table, size_table
from results_page import renew_page, write_plot

from magicbert.errors import EXIT_USER_ERROR, UserError
from magicbert.records import write_record
from magicbert.report.reading import read_run
from magicbert.trail import describe_environment

SCHEMA = "magicbert/interference-study/1"


def main(run_folder: str, output: str) -> None:
    """Writes JSON, plots and page.

    Raises:
        UserError: the run holds no examined supernet.
    """
    target, supernets = Path(output), examined(read_run(Path(run_folder)))
    if not supernets:
        raise UserError(f"{run_folder}: holds no supernet whose interference was examined")
    commits = sorted({one.commit for one in supernets})
    machine = {name: describe_environment()[name] for name in ("system", "processors")}
    payload = {
        "command": f"python benchmarks/interference_page.py {run_folder} {output}",
        "machine": machine,
        "rows": [dataclasses.asdict(one) for one in supernets],
    }
    write_record(target.with_suffix(".json"), SCHEMA, payload)
    where = (
        f"Examined at commit {', '.join(f'`{commit[:12]}`' for commit in commits)} on "
        f"{machine['system']}, {machine['processors']} processors."
    )
    renew_page(target.with_suffix(".md"), "\n\n".join([*sections(supernets, target), where]))


def sections(supernets: Sequence[Examined], target: Path) -> Iterator[str]:
    """Yields the parts of the page: methods, likeness of inputs and outputs, sizes."""
    size = main_size(supernets)
    first = [one for one in supernets if one.shared_layer == 1]
    methods = [one for one in first if one.size == size]
    if methods:
        yield f"## Methods\n\n{method_table(methods)}"
        yield write_plot(target, "methods", method_curves(methods))
    inner = [one for one in supernets if one.size == size and one.shared_layer > 1]
    if inner:
        yield f"## Inputs, outputs and gradients\n\n{likeness_table(inner)}"
        yield write_plot(target, "likeness", likeness_plot(inner))
    sizes = [one for one in first if one.size != size and one.method == METHODS[0]]
    if sizes:
        yield f"## Depth and choice\n\n{size_table(sizes)}"
        yield write_plot(target, "sizes", size_curves(sizes))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("run_folder", help="such as runs/rank-fidelity")
    parser.add_argument("output", help="such as docs/results/interference, without a suffix")
    arguments = parser.parse_args()
    try:
        main(arguments.run_folder, arguments.output)
    except UserError as error:
        parser.exit(EXIT_USER_ERROR, f"{error}\n")
