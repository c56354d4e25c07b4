"""What the corpus holds that cannot be used: refused or left out by a stated rule, and counted."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Literal

from magicbert.data.manifest import SkippedItem
from magicbert.errors import UserError

LOGGER = logging.getLogger("magicbert")

EMPTY_FILE = "empty file"
EMPTY_DOCUMENT = "empty document"
DUPLICATE = "duplicate document"
NOT_UTF8 = "not UTF-8"
NO_TOKENS = "no tokens"
UNKNOWN_KIND = "not a text, JSONL or Parquet file"
LINKED_FOLDER = "linked folder, not followed"
CUT = "cut in two, nothing lost: document above 4 MiB"


class Skips:
    """Counts what is left out of one source.

    Args:
        source: its name, for messages.
        on_bad_utf8: ``refuse`` or ``skip``.
    """

    def __init__(self, source: str, on_bad_utf8: Literal["refuse", "skip"] = "refuse") -> None:
        self.source = source
        self._on_bad_utf8 = on_bad_utf8
        self._counts: dict[str, int] = {}
        self._firsts: dict[str, str] = {}

    def add(self, reason: str, where: str = "", count: int = 1) -> None:
        """Counts documents (or files) left out for one reason."""
        if count:
            self._firsts.setdefault(reason, where)
            self._counts[reason] = self._counts.get(reason, 0) + count

    def bad_utf8(self, where: str) -> None:
        """Counts a document that is not UTF-8, or raises `UserError`, as configured."""
        if self._on_bad_utf8 == "refuse":
            raise UserError(
                f"{self.source}: {where}: not UTF-8; convert the file, or leave such documents "
                "out with corpus.on_bad_utf8 skip"
            )
        self.add(NOT_UTF8, where)

    def items(self) -> tuple[SkippedItem, ...]:
        """Returns the counts, one item per reason."""
        return tuple(
            SkippedItem(self.source, reason, count, self._firsts[reason])
            for reason, count in self._counts.items()
        )


def log_skipped(items: Iterable[SkippedItem]) -> None:
    """Logs one line per item."""
    for item in items:
        where = f", first at {item.first}" if item.first else ""
        LOGGER.warning("%s: %d x %s%s", item.source, item.count, item.reason, where)
