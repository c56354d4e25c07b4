"""Where numbers go: metrics.jsonl, TensorBoard, and the terminal."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any, TextIO

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from magicbert.trail import Trail
from magicbert.training.reporting.curves import Curves

LOGGER = logging.getLogger("magicbert")
SHOWN_OPERATORS = 6


class Tracker:
    """Writes what the loop reports; on ranks that do not write it does nothing.

    Use as a context manager.

    Args:
        trail: the stage's trail.
        num_steps: steps of the whole run, for the bar.
        first_step: steps already made.
    """

    def __init__(self, trail: Trail, num_steps: int, first_step: int) -> None:
        self.trail = trail
        self.num_steps = num_steps
        self._first_step = first_step
        self._start = time.monotonic()
        self._curves: Curves | None = None
        self._bar: Progress | None = None

    def __enter__(self) -> Tracker:
        if not self.trail.is_writer:
            return self
        self._curves = Curves(self.trail.folder / "tensorboard", self._first_step)
        if sys.stdout.isatty():
            self._bar = progress_bar()
            self._bar.start()
            # The bar has replaced sys.stdout; log lines through it land above the bar.
            redirect_console(sys.stdout)
            self._task = self._bar.add_task(
                "training", total=self.num_steps, completed=self._first_step, text=""
            )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
            redirect_console(sys.stdout)
        if self._curves is not None:
            self._curves.close()

    def record(self, kind: str, step: int, values: Mapping[str, Any]) -> None:
        """Writes one line of ``metrics.jsonl`` and its numbers as curves."""
        self.trail.record(kind, step=step, **values)
        if self._curves is not None:
            self._curves.add(kind, step, values)

    def advance(self, step: int) -> None:
        """Moves the bar."""
        if self._bar is not None:
            self._bar.update(self._task, completed=step)

    def show(self, step: int, text: str) -> None:
        """Shows the state of training: beside the bar, or as a line with the time left."""
        if not self.trail.is_writer:
            return
        if self._bar is not None:
            self._bar.update(self._task, completed=step, text=text)
            return
        seconds = (time.monotonic() - self._start) / max(step - self._first_step, 1)
        left = seconds * (self.num_steps - step)
        LOGGER.info("step %d/%d  %s  left %s", step, self.num_steps, text, duration(left))

    def say(self, text: str, level: int = logging.INFO) -> None:
        """Shows one line, above the bar where there is one."""
        if self.trail.is_writer:
            LOGGER.log(level, "%s", text)


def redirect_console(stream: TextIO) -> None:
    """Sends the console's log lines to another stream."""
    for handler in LOGGER.handlers:
        if type(handler) is logging.StreamHandler:
            handler.setStream(stream)


def progress_bar() -> Progress:
    """Returns the bar of a terminal."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[text]}"),
        TimeRemainingColumn(),
    )


def duration(seconds: float) -> str:
    """Returns ``1h02m`` or ``3m05s``."""
    minutes, rest = divmod(round(seconds), 60)
    if minutes >= 60:
        return f"{minutes // 60}h{minutes % 60:02d}m"
    return f"{minutes}m{rest:02d}s"


def short_path(path: str) -> str:
    """Returns a path with its middle left out."""
    names = path.split("-")
    if len(names) <= SHOWN_OPERATORS:
        return path
    half = SHOWN_OPERATORS // 2
    return "-".join([*names[:half], "...", *names[-half:]])
