"""Strict reading of SQuAD's JSON: every question becomes a value or a line of one message."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from magicbert.errors import UserError
from magicbert.finetune.examples import Source
from magicbert.finetune.squad.problems import Problems, quote
from magicbert.finetune.squad.questions import Answer, Question, Questions
from magicbert.finetune.squad.task import SquadTask
from magicbert.finetune.tsv import decode, read_bytes
from magicbert.records import digest_of

ENDINGS = (".json", ".json.gz")


def read_squad_file(path: Path, task: SquadTask, max_bad_questions: int = 0) -> Questions:
    """Reads ``.json`` or ``.json.gz`` in the format of SQuAD.

    Args:
        path: the file.
        task: says which version it must be.
        max_bad_questions: malformed questions that may be left out; one more is an error.

    Raises:
        UserError: naming the file and, one line each, every malformed question with its id.
    """
    tree = read_tree(path)
    problems = Problems(str(path))
    check_version(tree, task, problems)
    rows = tuple(read_articles(tree, task, problems))
    if not rows and not problems.lines:
        problems.add("data", "no questions")
    problems.refuse(max_bad_questions)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return Questions(rows, Source(path.name, digest, len(rows)), problems.skipped)


def read_tree(path: Path) -> dict[str, Any]:
    """Returns the object in a JSON file."""
    text = decode(path, read_bytes(path))
    try:
        tree = json.loads(text)
    except ValueError as error:
        raise UserError(f"{path}: not JSON: {error}") from error
    except RecursionError as error:
        raise UserError(f"{path}: not JSON of SQuAD: nested too deeply") from error
    if not isinstance(tree, dict):
        raise UserError(f"{path}: not an object, got {type(tree).__name__}")
    return tree


def check_version(tree: dict[str, Any], task: SquadTask, problems: Problems) -> None:
    """Notes a version that is not the task's; ``v2.0`` and ``2.0`` are the same."""
    version = tree.get("version")
    if not isinstance(version, str):
        problems.add("version", "missing" if version is None else f"not text: {quote(version)}")
    elif version.removeprefix("v") != task.version:
        problems.add(
            "version", f"{quote(version)} where task {task.name} reads version {task.version}"
        )


def read_articles(tree: dict[str, Any], task: SquadTask, problems: Problems) -> Iterator[Question]:
    """Yields the questions in order; what is malformed is noted and left out."""
    seen: set[str] = set()
    for place, article in items(tree, "data", "", problems):
        what = wrong_text(article, "title", may_be_empty=True)
        if what:
            problems.add(place, what)
        title = "" if what else article["title"]
        paragraphs = list(items(article, "paragraphs", place, problems))
        name = title or untitled([paragraph for _, paragraph in paragraphs])
        for where, paragraph in paragraphs:
            for at, row in items(paragraph, "qas", where, problems):
                question = read_question(row, name, paragraph, at, task, problems)
                if question is not None and question.id in seen:
                    problems.add_question(question.id, at, f"its id stands twice, again at {at}")
                elif question is not None:
                    seen.add(question.id)
                    yield question


def items(
    tree: dict[str, Any], key: str, place: str, problems: Problems
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields the objects of a list with their places, such as ``data[3].paragraphs[0]``."""
    where = f"{place}.{key}" if place else key
    values = tree.get(key)
    if not isinstance(values, list):
        problems.add(where, "missing" if values is None else "not a list")
        return
    for number, value in enumerate(values):
        if isinstance(value, dict):
            yield f"{where}[{number}]", value
        else:
            problems.add(f"{where}[{number}]", f"not an object, got {quote(value)}")


def wrong_text(tree: dict[str, Any], key: str, *, may_be_empty: bool = False) -> str:
    """Returns what is wrong with the text at a key; empty if nothing is."""
    if key not in tree:
        return f"{key}: missing"
    value = tree[key]
    if not isinstance(value, str):
        return f"{key}: not text: {quote(value)}"
    if not may_be_empty and not value.strip():
        return f"{key}: empty"
    try:
        value.encode()
    except UnicodeEncodeError:
        return f"{key}: holds half a surrogate pair: {quote(value)}"
    return ""


def untitled(paragraphs: list[dict[str, Any]]) -> str:
    """Returns the name of an article without a title, the same for the same paragraphs."""
    return f"untitled {digest_of([row.get('context') for row in paragraphs])[:16]}"


def read_question(
    row: dict[str, Any],
    article: str,
    paragraph: dict[str, Any],
    place: str,
    task: SquadTask,
    problems: Problems,
) -> Question | None:
    """Returns one question, ``None`` if there is something wrong with it or its context."""
    texts = ((row, "id"), (row, "question"), (paragraph, "context"))
    wrong = [what for tree, key in texts if (what := wrong_text(tree, key))]
    context = "" if wrong_text(paragraph, "context") else paragraph["context"]
    answers, found = read_answers(row, context)
    wrong += found or wrong_answerability(row, answers, task)
    name = row["id"] if isinstance(row.get("id"), str) else ""
    for what in wrong:
        problems.add_question(name, place, what)
    return None if wrong else Question(name, article, context, row["question"], answers)


def read_answers(row: dict[str, Any], context: str) -> tuple[tuple[Answer, ...], list[str]]:
    """Returns the gold answers, and what is wrong with them."""
    values = row.get("answers")
    if not isinstance(values, list):
        return (), ["answers: missing" if values is None else "answers: not a list"]
    answers, wrong = [], []
    for number, value in enumerate(values):
        what = wrong_answer(value, context)
        if what:
            wrong.append(f"answers[{number}]: {what}")
        else:
            answers.append(Answer(value["text"], value["answer_start"]))
    return tuple(answers), wrong


def wrong_answer(value: Any, context: str) -> str:
    """Returns what is wrong with one gold answer; empty if nothing is."""
    if not isinstance(value, dict):
        return f"not an object, got {quote(value)}"
    what = wrong_text(value, "text")
    if what:
        return what
    text, start = value["text"], value.get("answer_start")
    if type(start) is not int or start < 0:
        return f"answer_start: not a position: {quote(start)}"
    found = context[start : start + len(text)]
    if context and found != text:
        return f"{quote(text)} is not at its offset {start}, where the context has {quote(found)}"
    return ""


def wrong_answerability(
    row: dict[str, Any], answers: tuple[Answer, ...], task: SquadTask
) -> list[str]:
    """Returns what is wrong with ``is_impossible``, a field of version 2.0 alone."""
    flag = row.get("is_impossible", False)
    if not isinstance(flag, bool):
        return [f"is_impossible: not true or false: {quote(flag)}"]
    if task.has_unanswerable and "is_impossible" not in row:
        return ["is_impossible: missing"]
    if flag and not task.has_unanswerable:
        return [f"is_impossible: true, which task {task.name} does not know"]
    if flag and answers:
        return ["is_impossible: true, and it has answers"]
    if not flag and not answers:
        return ["answers: none, and it is not impossible"]
    return []
