"""Runs a script that builds a page in this process, as its command line would."""

from __future__ import annotations

import io
import runpy
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path

ROOT = Path(__file__).parents[1]


def run_script(script: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Runs it; a process of its own would import torch and transformers each time.

    Args:
        script: relative to the repository.
        arguments: of its command line.
    """
    command = [str(ROOT / script), *map(str, arguments)]
    output, errors, code = io.StringIO(), io.StringIO(), 0
    with as_main(command), redirect_stdout(output), redirect_stderr(errors):
        try:
            runpy.run_path(command[0], run_name="__main__")
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
    return subprocess.CompletedProcess(command, code, output.getvalue(), errors.getvalue())


@contextmanager
def as_main(command: list[str]) -> Iterator[None]:
    """Gives a script its command line and the modules beside it."""
    before = sys.argv, sys.path
    sys.argv, sys.path = command, [str(Path(command[0]).parent), *sys.path]
    try:
        yield
    finally:
        sys.argv, sys.path = before
