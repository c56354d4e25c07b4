"""SQuAD from the Hugging Face hub, for those who have no JSON files."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from magicbert.errors import UserError
from magicbert.finetune.examples import Source
from magicbert.finetune.squad.problems import Problems
from magicbert.finetune.squad.questions import Question, Questions
from magicbert.finetune.squad.squad_file import read_question, untitled, wrong_text
from magicbert.finetune.squad.task import SquadTask
from magicbert.records import digest_of


def load_splits(name: str, task: SquadTask) -> Mapping[str, Any]:
    """Downloads a data set, or reads it from the local cache of `datasets`.

    Raises:
        UserError: it cannot be reached, or has no split ``train``.
    """
    import datasets

    try:
        splits: Mapping[str, Any] = datasets.load_dataset(name)
    except (OSError, ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(
            f"task {task.name}: {name} cannot be loaded ({reason}). Give a folder of JSON files "
            "as squad.data, or set MAGICBERT_DATA to a folder that holds squad/"
        ) from error
    if "train" not in splits:
        raise UserError(f"{name}: no split 'train'; it has {', '.join(splits)}")
    return splits


def convert_split(name: str, split: Any, task: SquadTask, max_bad_questions: int = 0) -> Questions:
    """Returns the questions of one hub split, checked like those of a file.

    Args:
        name: data set and split, for messages and records.
        split: rows with ``id``, ``title``, ``context``, ``question`` and ``answers``.
        task: says whether every question must have an answer.
        max_bad_questions: malformed questions that may be left out; one more is an error.
    """
    problems = Problems(name)
    rows: dict[str, Question] = {}
    for number, row in enumerate(split):
        place = f"row {number}"
        tree = as_question(row, task)
        title = "" if wrong_text(row, "title", may_be_empty=True) else row["title"]
        question = read_question(tree, title or untitled([row]), row, place, task, problems)
        if question is not None and question.id in rows:
            problems.add_question(question.id, place, f"its id stands twice, again at {place}")
        elif question is not None:
            rows[question.id] = question
    if not rows and not problems.lines:
        problems.add("rows", "none")
    problems.refuse(max_bad_questions)
    digest = digest_of([[q.id, q.text, digest_of(q.context)] for q in rows.values()])
    return Questions(tuple(rows.values()), Source(name, digest, len(rows)), problems.skipped)


def as_question(row: Mapping[str, Any], task: SquadTask) -> dict[str, Any]:
    """Returns a row of the hub in the form that it has in a file."""
    tree = {key: row[key] for key in ("id", "question") if key in row}
    answers = row.get("answers")
    if isinstance(answers, Mapping):
        pairs = zip(answers.get("text", ()), answers.get("answer_start", ()), strict=False)
        tree["answers"] = [{"text": text, "answer_start": start} for text, start in pairs]
    if task.has_unanswerable:
        tree["is_impossible"] = not tree.get("answers")
    return tree
