"""A file of lines that is appended to for days: a full disk delays its lines and stops nothing."""

from __future__ import annotations

import collections
import logging
import os
from pathlib import Path
from types import TracebackType

LOGGER = logging.getLogger("magicbert")
MOST_WAITING = 100_000


class LineFile:
    """Appends whole lines.

    A line that cannot be written waits, with those after it, until there is room again; the first
    failure of a row of them is reported. A line that a kill has cut off is closed first.

    Args:
        path: the file; created if it is not there.

    Raises:
        OSError: it cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
        self._waiting: collections.deque[bytes] = collections.deque(maxlen=MOST_WAITING)
        self._is_failing = False
        if is_cut_off(self._descriptor):
            self._waiting.append(b"\n")

    def append(self, line: str) -> None:
        """Writes the lines that wait and this one, or lets it wait with them."""
        self._waiting.append(line.encode() + b"\n")
        try:
            while self._waiting:
                num_written = os.write(self._descriptor, self._waiting[0])
                # The system may take a part; the rest is asked for again, or fails with the reason.
                self._waiting[0] = self._waiting[0][num_written:]
                if not self._waiting[0]:
                    self._waiting.popleft()
        except OSError as error:
            self._fail(error)
        else:
            self._recover()

    def _fail(self, error: OSError) -> None:
        if self._is_failing:
            return
        # Set first: the log's own file is one of these, and the report comes back to it.
        self._is_failing = True
        LOGGER.error("%s: %s; going on, its lines wait in memory", self.path, error.strerror)

    def _recover(self) -> None:
        if self._is_failing:
            self._is_failing = False
            LOGGER.warning("%s: can be written again", self.path)

    def close(self) -> None:
        """Closes the file; lines that still wait are lost, which is said."""
        if self._descriptor < 0:
            return
        os.close(self._descriptor)
        self._descriptor = -1
        if self._waiting:
            LOGGER.error("%s: %d lines could not be written", self.path, len(self._waiting))

    def __enter__(self) -> LineFile:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def is_cut_off(descriptor: int) -> bool:
    """Says whether the last line of an open file lacks its end, as a kill leaves it."""
    size = os.fstat(descriptor).st_size
    return size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"
