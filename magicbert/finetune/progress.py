"""Progress of one cell: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import logging
import sys
import time
from typing import Any

import transformers
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

LOGGER = logging.getLogger("magicbert")
SECONDS_BETWEEN_LINES = 30.0


def step_progress(title: str) -> transformers.TrainerCallback:
    """Returns the callback that shows the steps of one training."""
    return StepBar(title) if sys.stdout.isatty() else StepLines(title)


class StepBar(transformers.TrainerCallback):  # type: ignore[misc]
    """A bar that goes away when the cell is done; the result line stands in its place."""

    def __init__(self, title: str) -> None:
        self.title = title
        self.bar = Progress(
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
            TimeRemainingColumn(), transient=True,
        )  # fmt: skip

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Draws the bar."""
        self.bar.start()
        self.row = self.bar.add_task(self.title, total=state.max_steps)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Moves the bar on."""
        self.bar.update(self.row, completed=state.global_step)

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Removes the bar."""
        self.bar.stop()


class StepLines(transformers.TrainerCallback):  # type: ignore[misc]
    """A line every half minute, so that a log shows that a long cell goes on."""

    def __init__(self, title: str) -> None:
        self.title = title
        self.last = time.monotonic()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Logs the step if the last line is old enough."""
        if time.monotonic() - self.last >= SECONDS_BETWEEN_LINES:
            self.last = time.monotonic()
            LOGGER.info("%s: step %d of %d", self.title, state.global_step, state.max_steps)
