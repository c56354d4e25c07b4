"""Fine-tuning on SQuAD: what differs from GLUE."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from magicbert.config.fields import option


@dataclass(frozen=True, kw_only=True, slots=True)
class SquadSection:
    """Questions on long contexts: files, windows, answers. Read for the squad tasks alone."""

    data: str = option(
        "",
        "folder with train-v1.1.json and dev-v1.1.json (v2.0 for squad_v2; .gz too), one such "
        "file, or a hub id; empty = $MAGICBERT_DATA/squad, else `datasets`",
    )
    max_length: int = option(384, "tokens of a window at most", within="[16, 65536]")
    overlap: int = option(
        128, "tokens of the context that neighbouring windows share", within="[0, 65536]"
    )
    max_question_tokens: int = option(
        64, "tokens of a question at most; the rest is cut off", within="[1, 65536]"
    )
    max_answer_tokens: int = option(30, "tokens of an answer at most", within="[1, 65536]")
    num_best: int = option(20, "answers per question in nbest_predictions.json", within="[1, 1e4]")
    dev_share: float = option(
        0.1, "share of the questions cut off for dev, by article, if there is no dev file",
        within="(0, 1)",
    )  # fmt: skip
    dev_articles_in_training: int = option(
        0, "articles of the dev file that are trained on instead", within="[0, 1e6]"
    )
    max_bad_questions: int = option(
        0, "malformed questions of a file that are left out and reported; more are an error",
        within="[0, 1e9]",
    )  # fmt: skip
    v1_warm_start: bool = option(
        False, "squad_v2 starts from the best model fine-tuned on squad if there is one"
    )

    def validate(self) -> Iterator[str]:
        """Yields the problems of this section, as ``field: what is wrong``."""
        if self.overlap + self.max_question_tokens >= self.max_length:
            yield (
                f"overlap: {self.overlap} with questions of {self.max_question_tokens} tokens "
                f"fills windows of {self.max_length}; they would not move on"
            )
