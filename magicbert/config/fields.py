"""One field of a configuration section: a default and a sentence for ``--help``."""

from __future__ import annotations

import dataclasses
from typing import Any


def option(default: Any, help: str) -> Any:
    """Returns a dataclass field with its default and its help text.

    Args:
        default: the one place where the default of this option stands.
        help: meaning and unit, in one sentence.
    """
    return dataclasses.field(default=default, metadata={"help": help})


def section(kind: type) -> Any:
    """Returns a dataclass field that holds a nested section with its own defaults."""
    return dataclasses.field(default_factory=kind)
