"""The trail that every stage leaves: resolved config, environment, metrics and log.

A run is ``<root>/<name>/``; each stage owns one folder below it, ``export/`` and
``report.html`` stand at the root of the run.
"""

from __future__ import annotations

import json
import logging
import os
import platform
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import Any

from magicbert import __version__
from magicbert.config.reading import to_yaml
from magicbert.config.sections import RunSection
from magicbert.line_file import LineFile
from magicbert.records import write_text_atomically
from magicbert.redaction import RedactingFormatter

LOGGER = logging.getLogger("magicbert")
PACKAGES = ("torch", "deepspeed", "transformers", "datasets", "tokenizers", "triton", "numpy")


def run_folder(run: RunSection) -> Path:
    """Returns ``<root>/<name>``."""
    return Path(run.root) / run.name


def stage_folder(run: RunSection, stage: str) -> Path:
    """Returns the folder of a stage; a label keeps several models of one run apart."""
    return run_folder(run) / (f"{stage}-{run.label}" if run.label else stage)


def own_or_plain_folder(run: RunSection, stage: str) -> Path:
    """Returns the folder of an earlier stage: of the same label if it is there, else the plain one.

    So models that share a supernet or a search need no copy of it, and those that do not are never
    mixed up.
    """
    labelled = stage_folder(run, stage)
    return labelled if labelled.is_dir() else run_folder(run) / stage


class Trail:
    """Writes ``config.yaml``, ``environment.json``, ``metrics.jsonl`` and ``log.txt``.

    Only the first rank writes; on other ranks every method does nothing. A disk that fills up
    later holds up metrics and log, not the work.
    """

    def __init__(self, folder: Path, config: Any, *, is_writer: bool = True) -> None:
        self.folder = folder
        self.is_writer = is_writer
        self._metrics: LineFile | None = None
        if not is_writer:
            return
        folder.mkdir(parents=True, exist_ok=True)
        write_text_atomically(folder / "config.yaml", to_yaml(config))
        environment = json.dumps(describe_environment(), indent=2) + "\n"
        write_text_atomically(folder / "environment.json", environment)
        self._metrics = LineFile(folder / "metrics.jsonl")
        self._handler = LogHandler(folder / "log.txt")
        LOGGER.addHandler(self._handler)

    def record(self, kind: str, **values: Any) -> None:
        """Appends one line to ``metrics.jsonl``: ``{"kind": ..., "time": ..., **values}``."""
        if self._metrics is None:
            return
        line = json.dumps({"kind": kind, "time": round(time.time(), 3), **values}, allow_nan=False)
        self._metrics.append(line)

    def close(self) -> None:
        """Closes the files; safe to call twice."""
        if self._metrics is not None:
            self._metrics.close()
            self._metrics = None
            LOGGER.removeHandler(self._handler)
            self._handler.close()

    def __enter__(self) -> Trail:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class LogHandler(logging.Handler):
    """Writes the program's messages to ``log.txt``, the time before each.

    Args:
        path: the file.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.setFormatter(RedactingFormatter("%(asctime)s %(levelname)s %(message)s"))
        self._lines = LineFile(path)

    def emit(self, record: logging.LogRecord) -> None:
        """Writes one message."""
        self._lines.append(self.format(record))

    def close(self) -> None:
        """Closes the file."""
        self._lines.close()
        super().close()


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """Returns the lines of ``metrics.jsonl``; a line cut off by a kill is left out."""
    rows = []
    try:
        lines = (folder / "metrics.jsonl").read_bytes().splitlines()
    except FileNotFoundError:
        return []
    for line in lines:
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict):
            rows.append(row)
    return rows


def describe_environment() -> dict[str, Any]:
    """Returns versions, machine and commit; nothing that names a user or a path."""
    versions: dict[str, str | None] = {}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = None
    return {
        "magicbert": __version__,
        "commit": current_commit(),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "processors": os.cpu_count(),
        "packages": versions,
        # The deepspeed launcher puts an option of its own ahead of the verb.
        "verb": next((word for word in sys.argv[1:] if not word.startswith("-")), ""),
    }


def current_commit() -> str | None:
    """Returns the commit this package runs from, or ``None`` outside a checkout.

    ``-dirty`` is appended when tracked files differ from the commit.
    """
    if run_git("ls-files", "--error-unmatch", Path(__file__).name) is None:
        return None  # installed, perhaps inside somebody else's checkout
    return run_git("describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")


def run_git(*arguments: str) -> str | None:
    """Returns what git prints in this package's folder, or ``None`` when it fails."""
    try:
        done = subprocess.run(
            ["git", "-C", str(Path(__file__).parent), *arguments],
            capture_output=True, text=True, timeout=10, check=True,
            env={**os.environ, "GIT_OPTIONAL_LOCKS": "0"},
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
