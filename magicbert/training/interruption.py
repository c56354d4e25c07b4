"""Signals: the first one asks for a stop between two steps, the second one leaves at once."""

from __future__ import annotations

import signal
from types import FrameType
from typing import Any


class Interruption:
    """Turns SIGTERM and SIGINT into a flag that is looked at between steps.

    Use as a context manager: the former handlers come back at its end.
    """

    SIGNALS = (signal.SIGTERM, signal.SIGINT)

    def __init__(self) -> None:
        self.is_requested = False
        self._former: dict[int, Any] = {}

    def request(self, number: int = 0, frame: FrameType | None = None) -> None:
        """Asks for a stop after the current step; also the signal handler."""
        self.is_requested = True

    def __enter__(self) -> Interruption:
        self._former = {number: signal.signal(number, self.request) for number in self.SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._former.items():
            signal.signal(number, handler)
