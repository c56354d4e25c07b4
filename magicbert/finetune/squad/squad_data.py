"""Finds the questions of a task: embedded, a folder or a file of JSON, or the hub."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from magicbert.config.sections import SquadSection
from magicbert.errors import UserError
from magicbert.finetune.squad.articles import cut_dev, lend_articles, refuse_shared
from magicbert.finetune.squad.embedded_squad import write_embedded_squad
from magicbert.finetune.squad.questions import Questions, take_questions
from magicbert.finetune.squad.squad_file import ENDINGS, read_squad_file
from magicbert.finetune.squad.squad_hub import convert_split, load_splits
from magicbert.finetune.squad.task import EMBEDDED_SQUAD, SquadTask


@dataclass(frozen=True)
class SquadData:
    """The questions of one task.

    Attributes:
        task: what they are.
        train: to learn from.
        dev: to be scored on; none of its articles is in ``train``.
        lent: articles of the dev file that went into training.
    """

    task: SquadTask
    train: Questions
    dev: Questions
    lent: tuple[str, ...] = ()

    def describe(self) -> dict[str, Any]:
        """Returns the record of what was read."""
        record: dict[str, Any] = {
            "train": describe_questions(self.train),
            "dev": describe_questions(self.dev),
        }
        if self.lent:
            record["dev_articles_in_training"] = list(self.lent)
        return record


def describe_questions(questions: Questions) -> dict[str, Any]:
    """Returns the record of one split."""
    source = questions.source
    record: dict[str, Any] = {
        "file": source.name,
        "sha256": source.sha256,
        "questions_in_file": source.num_rows,
        "questions": len(questions),
        "unanswerable": sum(not row.has_answer for row in questions.rows),
        "articles": len(questions.articles),
    }
    if questions.skipped:
        record["skipped_questions"] = list(questions.skipped)
    if source.subset:
        record["subset_ids_sha256"] = source.subset
    return record


def read_squad(
    task: SquadTask, settings: SquadSection, folder: Path, max_train_rows: int = 0
) -> SquadData:
    """Returns the questions of a task.

    Args:
        task: what to read.
        settings: where the files lie, how they are split.
        folder: the stage's folder; the embedded task is written there.
        max_train_rows: training questions to keep; 0 = all.

    Raises:
        UserError: a file is missing or malformed, or the two sides share an article.
    """
    train, dev = read_splits(task, settings, folder)
    if dev is None:
        train, dev = cut_dev(train, settings.dev_share)
    lent: list[str] = []
    refuse_shared(train, dev)
    if settings.dev_articles_in_training:
        train, dev, lent = lend_articles(train, dev, settings.dev_articles_in_training)
    return SquadData(task, take_questions(train, max_train_rows), dev, tuple(lent))


def read_splits(
    task: SquadTask, settings: SquadSection, folder: Path
) -> tuple[Questions, Questions | None]:
    """Returns what the files or the hub hold; no dev questions if there is one file only."""
    limit = settings.max_bad_questions
    if task is EMBEDDED_SQUAD:
        root = folder / "tasks" / task.name
        write_embedded_squad(root, task)
        return read_folder(root, task, 0)
    place = find_place(settings.data)
    if isinstance(place, Path):
        if place.is_file():
            return read_squad_file(place, task, limit), None
        return read_folder(place, task, limit)
    name = place or task.hub_id
    splits = load_splits(name, task)
    train, *dev = (
        convert_split(f"{name}:{split}", splits[split], task, limit)
        for split in ("train", "validation")
        if split in splits
    )
    return train, dev[0] if dev else None


def read_folder(
    folder: Path, task: SquadTask, max_bad_questions: int
) -> tuple[Questions, Questions | None]:
    """Reads the train file of a folder, and the dev file if there is one."""
    train = find_file(folder, task, "train")
    if train is None:
        names = " or ".join(task.stem("train") + ending for ending in ENDINGS)
        raise UserError(f"{folder}: no {names}; set squad.data to a folder or a file that is there")
    dev = find_file(folder, task, "dev")
    return (
        read_squad_file(train, task, max_bad_questions),
        None if dev is None else read_squad_file(dev, task, max_bad_questions),
    )


def find_file(folder: Path, task: SquadTask, split: str) -> Path | None:
    """Returns the file of a split, plain before packed, or ``None``."""
    paths = (folder / f"{task.stem(split)}{ending}" for ending in ENDINGS)
    return next((path for path in paths if path.is_file()), None)


def find_place(data: str) -> Path | str:
    """Returns the folder or file that holds the questions, or a hub id; empty = the task's own.

    Raises:
        UserError: ``squad.data`` looks like a path, and nothing is there.
    """
    if not data:
        shared = os.environ.get("MAGICBERT_DATA", "")
        folder = Path(shared) / "squad"
        return folder if shared and folder.is_dir() else ""
    path = Path(os.path.expandvars(data)).expanduser()
    if path.exists():
        return path
    # A hub id is "name" or "owner/name"; anything else can only be meant as a path.
    if data.endswith(ENDINGS) or data.startswith((".", "/", "~", "$")) or data.count("/") > 1:
        raise UserError(f"squad.data: {path}: no such file or folder")
    return data
