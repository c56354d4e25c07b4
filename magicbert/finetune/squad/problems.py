"""What is wrong with a file of questions, gathered so that one message says all of it."""

from __future__ import annotations

from dataclasses import dataclass, field

from magicbert.errors import UserError

MAX_SHOWN = 20
MAX_QUOTED = 60


@dataclass
class Problems:
    """The problems of one file.

    Attributes:
        file: its name in the message.
        lines: what is wrong, with the place: a question's id, or a position in the file.
        bad_questions: ids of questions that could be left out.
        is_fatal: something is wrong beyond single questions.
    """

    file: str
    lines: list[str] = field(default_factory=list)
    bad_questions: list[str] = field(default_factory=list)
    is_fatal: bool = False

    def add(self, place: str, what: str) -> None:
        """Notes a problem that no question can be left out for."""
        self.lines.append(f"{place}: {what}")
        self.is_fatal = True

    def add_question(self, name: str, place: str, what: str) -> None:
        """Notes a problem of one question.

        Args:
            name: the question's id; empty if it has none.
            place: where it stands in the file.
            what: what is wrong.
        """
        self.lines.append(f"question {name}: {what}" if name else f"{place}: {what}")
        self.bad_questions.append(name or place)

    def refuse(self, max_bad_questions: int) -> None:
        """Raises `UserError` with every problem, unless there are few bad questions and no more."""
        if not self.lines or (not self.is_fatal and len(self.skipped) <= max_bad_questions):
            return
        shown = "".join(f"\n  - {line}" for line in self.lines[:MAX_SHOWN])
        more = len(self.lines) - MAX_SHOWN
        rest = f"\n  and {more} more" if more > 0 else ""
        count = "1 problem" if len(self.lines) == 1 else f"{len(self.lines)} problems"
        hint = (
            "" if self.is_fatal
            else "\nset squad.max_bad_questions to leave so many questions out"
        )  # fmt: skip
        raise UserError(f"{self.file}: {count}{shown}{rest}{hint}")

    @property
    def skipped(self) -> tuple[str, ...]:
        """Returns the questions with problems, each once."""
        return tuple(dict.fromkeys(self.bad_questions))


def quote(value: object) -> str:
    """Returns a value of the file, cut where it is long."""
    text = repr(value)
    return text if len(text) <= MAX_QUOTED else f"{text[:MAX_QUOTED]}..."
