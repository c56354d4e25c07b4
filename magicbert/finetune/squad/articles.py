"""Splits of questions that never cut an article in two."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import numpy as np

from magicbert.errors import UserError
from magicbert.finetune.examples import SUBSET_SEED
from magicbert.finetune.squad.questions import Questions

MAX_NAMED = 5


def cut_dev(questions: Questions, share: float) -> tuple[Questions, Questions]:
    """Returns training and dev questions cut from one file by article.

    Articles come to the dev side in a fixed random order until it has its share of the questions.

    Args:
        questions: of the only file there is.
        share: of the questions, about; one article at least is on either side.

    Raises:
        UserError: there is only one article.
    """
    groups = article_groups(questions)
    if len(groups) < 2:
        raise UserError(
            f"{questions.source.name}: dev questions are cut from it by article, and it has one "
            "article only; give a train and a dev file"
        )
    counts = Counter(row.article for row in questions.rows)
    chosen: set[str] = set()
    for group in shuffled(groups)[:-1]:
        if sum(counts[article] for article in chosen) >= share * len(questions):
            break
        chosen |= set(groups[group])
    return part(questions, chosen, inside=False), part(questions, chosen, inside=True)


def article_groups(questions: Questions) -> dict[str, list[str]]:
    """Returns the articles in groups that share no paragraph, under the first of each group."""
    group = {article: article for article in questions.articles}
    first_with: dict[str, str] = {}
    for row in questions.rows:
        ours, theirs = group[row.article], group[first_with.setdefault(row.context, row.article)]
        if ours != theirs:
            group = {name: theirs if of == ours else of for name, of in group.items()}
    members: dict[str, list[str]] = {}
    for article, name in group.items():
        members.setdefault(name, []).append(article)
    return members


def lend_articles(
    train: Questions, dev: Questions, count: int
) -> tuple[Questions, Questions, list[str]]:
    """Returns both sides after some dev articles went into training, and which went.

    Raises:
        UserError: no dev article would be left.
    """
    articles = shuffled(dev.articles)
    if count >= len(articles):
        raise UserError(
            f"squad.dev_articles_in_training: {count} of the {len(articles)} articles of "
            f"{dev.source.name}; one at least must stay"
        )
    lent = set(articles[:count])
    moved = part(dev, lent, inside=True)
    both = Questions(train.rows + moved.rows, train.source, train.skipped)
    return both, part(dev, lent, inside=False), sorted(lent)


def refuse_shared(train: Questions, dev: Questions) -> None:
    """Raises `UserError` if an article, a paragraph or an id is on both sides."""
    pairs = (
        ("article", {row.article for row in train.rows}, {row.article for row in dev.rows}),
        ("paragraph", {row.context for row in train.rows}, {row.context for row in dev.rows}),
        ("question id", {row.id for row in train.rows}, {row.id for row in dev.rows}),
    )
    for what, here, there in pairs:
        both = sorted(here & there)
        if both:
            names = ", ".join(repr(name[:60]) for name in both[:MAX_NAMED])
            more = f" and {len(both) - MAX_NAMED} more" if len(both) > MAX_NAMED else ""
            raise UserError(
                f"{train.source.name} and {dev.source.name} share: {what} {names}{more}; "
                "scores on dev would be too good"
            )


def shuffled(names: Iterable[str]) -> list[str]:
    """Returns names in an order that looks random and depends on nothing else."""
    ordered = sorted(names)
    order = np.random.Generator(np.random.Philox(SUBSET_SEED)).permutation(len(ordered))
    return [ordered[number] for number in order]


def part(questions: Questions, articles: set[str], *, inside: bool) -> Questions:
    """Returns the questions that are about some articles, or about all others."""
    return questions.restricted(
        row for row in questions.rows if (row.article in articles) == inside
    )
