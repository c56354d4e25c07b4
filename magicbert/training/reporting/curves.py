"""TensorBoard's curves: a convenience that never stops a run."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

LOGGER = logging.getLogger("magicbert")


class Curves:
    """Writes numbers for TensorBoard until its disk fails; ``metrics.jsonl`` has them all anyway.

    Args:
        folder: of the event files.
        first_step: steps already made; later points of an earlier start are hidden.
    """

    def __init__(self, folder: Path, first_step: int) -> None:
        # Imported here: it takes a second, and other stages and ranks need none of it.
        from torch.utils.tensorboard.writer import SummaryWriter

        self._writer: Any = None
        self._writer = self._unless_it_fails(
            partial(SummaryWriter, str(folder), purge_step=first_step)
        )

    def add(self, kind: str, step: int, values: Mapping[str, Any]) -> None:
        """Adds a point to the curve of every number."""
        numbers = {
            f"{kind}/{name}": value
            for name, value in values.items()
            if isinstance(value, (int, float)) and not isinstance(value, bool)
        }
        for name, number in numbers.items():
            if self._writer is not None:
                self._unless_it_fails(partial(self._writer.add_scalar, name, number, step))

    def close(self) -> None:
        """Writes what is left."""
        if self._writer is not None:
            self._unless_it_fails(self._writer.close)
        self._writer = None

    def _unless_it_fails(self, work: Callable[[], Any]) -> Any:
        """Does something; at the first failure the curves of this start end."""
        try:
            return work()
        except OSError as error:
            LOGGER.error("tensorboard: %s; going on without it", error.strerror or error)
            self._writer = None
        return None
