"""Progress over the paths of a round: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterator, Sequence

from rich.progress import track

from magicbert.space import Architecture

LOGGER = logging.getLogger("magicbert")
SECONDS_BETWEEN_LINES = 30.0


def watched(paths: Sequence[Architecture]) -> Iterator[Architecture]:
    """Yields the paths while showing how many are scored."""
    if sys.stdout.isatty():
        yield from track(paths, description="scoring", transient=True)
        return
    last = time.monotonic()
    for index, path in enumerate(paths):
        if time.monotonic() - last >= SECONDS_BETWEEN_LINES:
            last = time.monotonic()
            LOGGER.info("search: %d of %d paths scored in this round", index, len(paths))
        yield path
