"""What every test starts and ends with."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def new_logging() -> Iterator[None]:
    """Starts and ends with the package's logger as it is before any command.

    A command sets it up for the rest of its process, and so may a fixture of a whole module.
    """
    reset_logger()
    yield
    reset_logger()


def reset_logger() -> None:
    """Takes back what a command or a run's trail has done to the package's logger."""
    logger = logging.getLogger("magicbert")
    logger.handlers.clear()
    logger.setLevel(logging.NOTSET)
    logger.propagate = True
