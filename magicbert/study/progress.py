"""How far a study is: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Sequence

from rich.progress import Progress

from magicbert.study.estimates import UnitCosts
from magicbert.study.units import Unit

LOGGER = logging.getLogger("magicbert")
SECONDS_BETWEEN_LINES = 30.0


class StudyProgress:
    """Shows how many units are done, and how long the others will take.

    Args:
        units: all units.
        missing: those to be done in this start.
        costs: of units; time is taken to be in proportion.
    """

    def __init__(self, units: Sequence[Unit], missing: Sequence[Unit], costs: UnitCosts) -> None:
        self._num_units, self._num_left = len(units), len(missing)
        self._costs = costs
        self._left = sum(costs.flops(unit) for unit in missing)
        self._done = 0.0
        self._began = self._last_line = time.monotonic()
        self._bar = Progress(transient=True) if sys.stdout.isatty() else None
        self._task = self._bar.add_task("study", total=self._left or 1.0) if self._bar else None

    def advance(self, unit: Unit) -> None:
        """Counts a unit as done."""
        flops = self._costs.flops(unit)
        self._num_left -= 1
        self._left, self._done = self._left - flops, self._done + flops
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, advance=flops)
            return
        now = time.monotonic()
        if now - self._last_line >= SECONDS_BETWEEN_LINES:
            self._last_line = now
            LOGGER.info("%s", self.line(now))

    def line(self, now: float) -> str:
        """Returns what a log shows."""
        text = f"study: {self._num_units - self._num_left} of {self._num_units} units"
        if not self._done:
            return text
        minutes = (now - self._began) * self._left / self._done / 60
        return f"{text}, about {minutes:.0f} minutes left"

    def __enter__(self) -> StudyProgress:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()
