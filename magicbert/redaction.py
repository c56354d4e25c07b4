"""Secrets: found in text, and taken out of everything that is printed or logged.

Tokens come from the environment only. A configuration that holds one is refused, so none can
reach the trail of a run, its checkpoints or an export; messages of other packages may still
quote one, so whatever this program prints goes through `redact`.
"""

from __future__ import annotations

import logging
import os
import re
import sys
import traceback
from collections.abc import Iterator
from types import TracebackType

MASK = "***"
MIN_LENGTH = 6  # a shorter value stands in ordinary words, too
SECRET_NAME = re.compile(r"TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIAL|API_?KEY|ACCESS_?KEY", re.I)
# The user part of an address, such as https://user:password@host; an ``@`` further on is a path's.
USER_INFO = re.compile(r"(?<=://)[^\s/@'\"]+(?=@)")


def secret_values() -> Iterator[tuple[str, str]]:
    """Yields name and value of the environment variables that hold secrets, longest value first."""
    named = [(name, value) for name, value in os.environ.items() if SECRET_NAME.search(name)]
    for name, value in sorted(named, key=lambda pair: -len(pair[1])):
        # TOKENIZERS_PARALLELISM and the like hold words, not secrets.
        if len(value) >= MIN_LENGTH and not value.isalpha():
            yield name, value


def redact(text: str) -> str:
    """Returns the text with secrets of the environment and user parts of addresses masked."""
    for _, value in secret_values():
        text = text.replace(value, MASK)
    return USER_INFO.sub(MASK, text)


def secret_in(text: str) -> str | None:
    """Returns which kind of secret a text holds, or ``None``."""
    if USER_INFO.search(text):
        return "a user or password in an address"
    found = (name for name, value in secret_values() if value in text)
    return next((f"the value of ${name}" for name in found), None)


class RedactingFormatter(logging.Formatter):
    """Formats a log record, tracebacks included, without secrets."""

    def format(self, record: logging.LogRecord) -> str:
        """Returns the masked line."""
        return redact(super().format(record))


def print_redacted(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    """Prints an uncaught exception without secrets; takes the place of ``sys.excepthook``."""
    lines = traceback.format_exception(kind, error, trace)
    print(redact("".join(lines)), end="", file=sys.stderr)
