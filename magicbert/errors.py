"""Errors that are the user's to mend: shown as one message, without a traceback, exit code 2."""

from __future__ import annotations

from collections.abc import Sequence

EXIT_USER_ERROR = 2
EXIT_STOPPED = 75  # EX_TEMPFAIL: stopped on request, start again with the same command


class UserError(Exception):
    """A mistake in what the user gave: the message says what, where, the value and what to do.

    Attributes:
        exit_code: what the program leaves with.
    """

    exit_code: int = EXIT_USER_ERROR


class ConfigError(UserError):
    """Every problem of one configuration, each with its dotted path.

    Attributes:
        problems: one line per problem, as ``dotted.path: what is wrong``.
    """

    def __init__(self, source: str, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        count = "1 problem" if len(self.problems) == 1 else f"{len(self.problems)} problems"
        lines = "\n".join(f"  - {problem}" for problem in self.problems)
        super().__init__(f"{source}: {count}\n{lines}")
