"""Progress over the paths of a round: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Iterator, Sequence

from rich.progress import Progress

from magicbert.space import Architecture

LOGGER = logging.getLogger("magicbert")
SECONDS_BETWEEN_LINES = 30.0


def watched(groups: Sequence[Sequence[Architecture]]) -> Iterator[Sequence[Architecture]]:
    """Yields groups of paths while showing how many paths are scored."""
    num_paths = sum(map(len, groups))
    if sys.stdout.isatty() and os.environ.get("RANK", "0") == "0":
        with Progress(transient=True) as bar:
            task = bar.add_task("scoring", total=num_paths)
            for group in groups:
                yield group
                bar.advance(task, len(group))
        return
    last, num_scored = time.monotonic(), 0
    for group in groups:
        if time.monotonic() - last >= SECONDS_BETWEEN_LINES:
            last = time.monotonic()
            LOGGER.info("search: %d of %d paths scored in this round", num_scored, num_paths)
        yield group
        num_scored += len(group)
