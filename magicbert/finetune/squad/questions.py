"""Questions as values, whatever file or hub they come from."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from magicbert.finetune.examples import SUBSET_SEED, Source
from magicbert.records import digest_of


@dataclass(frozen=True, slots=True)
class Answer:
    """One gold answer.

    Attributes:
        text: as the context spells it.
        start: its first character in the context.
    """

    text: str
    start: int


@dataclass(frozen=True, slots=True)
class Question:
    """One question.

    Attributes:
        id: unique in its file.
        article: what it is about; the questions of an article stay on one side of a split.
        context: the paragraph that answers it, or does not.
        text: the question.
        answers: gold answers; none if the context does not answer it.
    """

    id: str
    article: str
    context: str
    text: str
    answers: tuple[Answer, ...]

    @property
    def has_answer(self) -> bool:
        """Whether the context answers it."""
        return bool(self.answers)


@dataclass(frozen=True)
class Questions:
    """The questions of one split.

    Attributes:
        rows: in the order of the file.
        source: where they come from; ``subset`` is the digest of the ids if it is not all of them.
        skipped: ids of malformed questions that were left out.
    """

    rows: tuple[Question, ...]
    source: Source
    skipped: tuple[str, ...] = ()

    def __len__(self) -> int:
        """Returns the number of questions."""
        return len(self.rows)

    @property
    def articles(self) -> list[str]:
        """Returns the articles, each once, in the order of the file."""
        return list(dict.fromkeys(row.article for row in self.rows))

    def restricted(self, rows: Iterable[Question]) -> Questions:
        """Returns some of the questions, with the same source."""
        kept = tuple(rows)
        subset = digest_of([row.id for row in kept])
        source = Source(self.source.name, self.source.sha256, self.source.num_rows, subset=subset)
        return Questions(kept, source, self.skipped)


def take_questions(questions: Questions, max_rows: int) -> Questions:
    """Returns a fixed choice in file order; smaller choices lie inside larger ones.

    Args:
        questions: all of them.
        max_rows: how many to keep; 0 = all.
    """
    if max_rows == 0 or max_rows >= len(questions):
        return questions
    order = np.random.Generator(np.random.Philox(SUBSET_SEED)).permutation(len(questions))
    chosen = sorted(int(row) for row in order[:max_rows])
    return questions.restricted(questions.rows[row] for row in chosen)
