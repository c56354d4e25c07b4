"""A progress bar on a terminal, a log line now and then elsewhere."""

from __future__ import annotations

import logging
import sys
import time

from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

LOGGER = logging.getLogger("magicbert")
SECONDS_BETWEEN_LINES = 15.0


class ByteProgress:
    """Shows how many of so many bytes are done.

    Args:
        what: heading, such as ``tokenising``.
        total: bytes in all.
    """

    def __init__(self, what: str, total: int) -> None:
        self._what, self._total, self._done = what, total, 0
        self._last_line = time.monotonic()
        self._bar = _bar() if sys.stdout.isatty() else None
        self._task = self._bar.add_task(what, total=total) if self._bar else None

    def advance(self, num_bytes: int) -> None:
        """Counts more bytes as done."""
        self._done += num_bytes
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=self._done)
        elif time.monotonic() - self._last_line > SECONDS_BETWEEN_LINES:
            self._last_line = time.monotonic()
            share = 100 * self._done / max(self._total, 1)
            LOGGER.info("%s: %.0f%% of %.1f MB", self._what, share, self._total / 1e6)

    def __enter__(self) -> ByteProgress:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()


def _bar() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
