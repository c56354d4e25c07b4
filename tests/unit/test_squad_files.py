"""Files of questions: what is well formed is read whole, anything else is named in one message."""

from __future__ import annotations

import copy
import gzip
import json
import os
from pathlib import Path
from typing import Any

import datasets
import huggingface_hub
import pytest
from datasets import Dataset, DatasetDict

from magicbert.config.sections import SquadSection
from magicbert.errors import UserError
from magicbert.finetune.examples import Source
from magicbert.finetune.squad.articles import cut_dev, lend_articles
from magicbert.finetune.squad.questions import Question, Questions, take_questions
from magicbert.finetune.squad.squad_data import find_place, read_squad
from magicbert.finetune.squad.squad_file import read_squad_file
from magicbert.finetune.squad.squad_hub import convert_split
from magicbert.finetune.squad.task import EMBEDDED_SQUAD, SQUAD, SQUAD_V2
from magicbert.finetune.task_data import find_all_tasks

SHARED = Path(os.environ.get("MAGICBERT_DATA", "")) / "squad"
CONTEXT = "Ada met Bo in Rome."


def gold(text: str, start: int) -> dict[str, Any]:
    return {"text": text, "answer_start": start}


def tree(version: str = "1.1", title: str = "A") -> dict[str, Any]:
    rows = [
        {"id": f"{title}1", "question": "Who?", "answers": [{"text": "Ada", "answer_start": 0}]},
        {
            "id": f"{title}2",
            "question": "Where?",
            "answers": [{"text": "Rome", "answer_start": 14}],
        },
    ]
    if version == "v2.0":
        rows.append({"id": f"{title}3", "question": "When?", "answers": []})
        for row in rows:
            row["is_impossible"] = not row["answers"]
    context = f"{CONTEXT} {title}"
    return {"version": version, "data": [
        {"title": title, "paragraphs": [{"context": context, "qas": rows}]}
    ]}  # fmt: skip


def joined(version: str, *titles: str) -> dict[str, Any]:
    return {"version": version, "data": [tree(version, title)["data"][0] for title in titles]}


def write(path: Path, value: object) -> Path:
    data = json.dumps(value).encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def row_of(value: dict[str, Any], number: int = 0) -> dict[str, Any]:
    row: dict[str, Any] = value["data"][0]["paragraphs"][0]["qas"][number]
    return row


def change(value: dict[str, Any], place: str, new: Any) -> dict[str, Any]:
    """Returns a copy with one entry replaced, or removed if ``new`` is ``KeyError``."""
    value = copy.deepcopy(value)
    *parents, last = [int(key) if key.isdigit() else key for key in place.split("/")]
    holder: Any = value
    for key in parents:
        holder = holder[key]
    if new is KeyError:
        del holder[last]
    else:
        holder[last] = new
    return value


def test_questions_are_read_as_they_stand(tmp_path: Path) -> None:
    questions = read_squad_file(write(tmp_path / "x.json.gz", tree("v2.0")), SQUAD_V2)
    assert [row.id for row in questions.rows] == ["A1", "A2", "A3"]
    assert [row.has_answer for row in questions.rows] == [True, True, False]
    assert questions.rows[1].answers[0].text == "Rome"
    assert questions.articles == ["A"]
    assert questions.source.num_rows == 3


PARAGRAPH = "data/0/paragraphs/0"
QAS = f"{PARAGRAPH}/qas"
WRONG = [
    ("1.1", "version", KeyError, "version: missing"),
    ("1.1", "version", "v2.0", "version: 'v2.0' where task squad reads version 1.1"),
    ("v2.0", "version", "1.1", "version: '1.1' where task squad_v2 reads version 2.0"),
    ("1.1", "version", 1.1, "version: not text: 1.1"),
    ("1.1", "data", KeyError, "data: missing"),
    ("1.1", "data", [], "data: no questions"),
    ("1.1", "data/0", 7, "data[0]: not an object, got 7"),
    ("1.1", "data/0/title", KeyError, "data[0]: title: missing"),
    ("1.1", "data/0/paragraphs", {}, "data[0].paragraphs: not a list"),
    ("1.1", "data/0/paragraphs/0/context", KeyError, "question A1: context: missing"),
    ("1.1", "data/0/paragraphs/0/context", " \n", "question A2: context: empty"),
    ("1.1", "data/0/paragraphs/0/qas", KeyError, "data[0].paragraphs[0].qas: missing"),
    ("1.1", f"{QAS}/1/id", KeyError, "data[0].paragraphs[0].qas[1]: id: missing"),
    ("1.1", f"{QAS}/1/id", 5, "data[0].paragraphs[0].qas[1]: id: not text: 5"),
    ("1.1", f"{QAS}/1/id", "A1", "question A1: its id stands twice, again at "),
    ("1.1", f"{QAS}/1/question", "", "question A2: question: empty"),
    ("1.1", f"{QAS}/1/question", "\ud800?", "question A2: question: holds half a surrogate pair"),
    ("1.1", f"{QAS}/1/answers", KeyError, "question A2: answers: missing"),
    ("1.1", f"{QAS}/1/answers", "Rome", "question A2: answers: not a list"),
    ("1.1", f"{QAS}/1/answers", [], "question A2: answers: none, and it is not impossible"),
    ("1.1", f"{QAS}/1/answers/0", "Rome", "question A2: answers[0]: not an object, got 'Rome'"),
    ("1.1", f"{QAS}/1/answers/0/text", "", "question A2: answers[0]: text: empty"),
    ("1.1", f"{QAS}/1/answers/0/answer_start", 13, "question A2: answers[0]: 'Rome' is not at its "
     "offset 13, where the context has ' Rom'"),
    ("1.1", f"{QAS}/1/answers/0/answer_start", -5, "answers[0]: answer_start: not a position: -5"),
    ("1.1", f"{QAS}/1/answers/0/answer_start", True, "answer_start: not a position: True"),
    ("1.1", f"{QAS}/1/is_impossible", True, "question A2: is_impossible: true, which task squad"),
    ("v2.0", f"{QAS}/2/is_impossible", KeyError, "question A3: is_impossible: missing"),
    ("v2.0", f"{QAS}/2/is_impossible", 0, "question A3: is_impossible: not true or false: 0"),
    ("v2.0", f"{QAS}/1/is_impossible", True, "question A2: is_impossible: true, and it has"),
    ("v2.0", f"{QAS}/2/is_impossible", False, "question A3: answers: none, and it is not"),
]  # fmt: skip


@pytest.mark.parametrize(("version", "place", "new", "words"), WRONG)
def test_what_is_malformed_is_named_with_file_and_question(
    tmp_path: Path, version: str, place: str, new: Any, words: str
) -> None:
    path = write(tmp_path / "train.json", change(tree(version), place, new))
    with pytest.raises(UserError) as caught:
        read_squad_file(path, SQUAD if version == "1.1" else SQUAD_V2)
    assert str(caught.value).startswith(f"{path}: ")
    assert words in str(caught.value)


def test_all_problems_come_in_one_message(tmp_path: Path) -> None:
    value = joined("1.1", *(f"T{number}" for number in range(30)))
    for article in value["data"]:
        article["paragraphs"][0]["qas"][0]["answers"][0]["answer_start"] += 1
    with pytest.raises(UserError) as caught:
        read_squad_file(write(tmp_path / "x.json", value), SQUAD)
    message = str(caught.value)
    assert "30 problems" in message
    assert "question T0" in message
    assert "and 10 more" in message
    assert "squad.max_bad_questions" in message


def test_a_few_bad_questions_can_be_left_out_and_are_recorded(tmp_path: Path) -> None:
    value = change(tree(), f"{QAS}/1/answers/0/answer_start", 2)
    path = write(tmp_path / "x.json", value)
    questions = read_squad_file(path, SQUAD, max_bad_questions=1)
    assert [row.id for row in questions.rows] == ["A1"]
    assert questions.skipped == ("A2",)
    broken = write(tmp_path / "y.json", change(value, "data/0/title", KeyError))
    with pytest.raises(UserError, match="title: missing"):
        read_squad_file(broken, SQUAD, max_bad_questions=9)


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        (
            "x.json.gz",
            gzip.compress(b'{"version": "1.1"}' * 99, mtime=0)[:-9],
            "damaged or truncated gzip",
        ),
        ("x.json.gz", b"plain", "damaged or truncated gzip"),
        ("x.json", b'{"version": "1.1", "data": [', "not JSON"),
        ("x.json", b"[1]", "not an object, got list"),
        ("x.json", b"[" * 100_000, "not JSON"),
        ("x.json", b'{"version": "\xff"}', "not UTF-8"),
    ],
)
def test_files_that_are_no_json_are_named(
    tmp_path: Path, name: str, data: bytes, words: str
) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(UserError, match=words) as caught:
        read_squad_file(tmp_path / name, SQUAD)
    assert str(tmp_path / name) in str(caught.value)


def many(num_articles: int, per_article: int = 10) -> Questions:
    rows = tuple(
        Question(f"{article}-{number}", f"T{article}", f"context {article}", "?", ())
        for article in range(num_articles)
        for number in range(per_article)
    )
    return Questions(rows, Source("x.json", "", len(rows)))


@pytest.mark.parametrize(
    ("articles", "share", "num_dev"),
    [(20, 0.1, 20), (20, 0.45, 90), (2, 0.1, 10), (3, 0.99, 20)],
)
def test_dev_is_cut_by_article(articles: int, share: float, num_dev: int) -> None:
    train, dev = cut_dev(many(articles), share)
    assert not set(train.articles) & set(dev.articles)
    assert (len(dev), len(train)) == (num_dev, 10 * articles - num_dev)
    assert cut_dev(many(articles), share) == (train, dev)


def test_articles_that_share_a_paragraph_stay_together() -> None:
    rows = [
        Question(row.id, row.article, "the same" if row.article in ("T1", "T4") else row.context,
                 "?", ())
        for row in many(6).rows
    ]  # fmt: skip
    for share in (0.1, 0.3, 0.5, 0.7):
        train, dev = cut_dev(Questions(tuple(rows), Source("x", "", 60)), share)
        assert not {row.context for row in train.rows} & {row.context for row in dev.rows}


def test_one_article_cannot_be_cut() -> None:
    with pytest.raises(UserError, match="one article only"):
        cut_dev(many(1), 0.1)


def test_dev_articles_can_be_lent_but_not_all() -> None:
    train, dev, lent = lend_articles(many(1), many(4), 3)
    assert (len(train), len(dev), len(lent)) == (40, 10, 3)
    assert not set(lent) & set(dev.articles)
    with pytest.raises(UserError, match="4 of the 4 articles"):
        lend_articles(many(1), many(4), 4)


def test_smaller_choices_lie_inside_larger_ones() -> None:
    ten, thirty = take_questions(many(5), 10), take_questions(many(5), 30)
    assert set(ten.rows) < set(thirty.rows)
    assert len(thirty) == 30
    assert ten.source.subset != thirty.source.subset


def test_a_folder_gives_both_sides_and_one_file_is_cut(tmp_path: Path) -> None:
    write(tmp_path / "train-v1.1.json.gz", joined("1.1", "A", "B", "C"))
    cut = read_squad(SQUAD, SquadSection(data=str(tmp_path)), tmp_path)
    assert (len(cut.train), len(cut.dev)) == (4, 2)
    write(tmp_path / "dev-v1.1.json", joined("1.1", "D", "E"))
    both = read_squad(SQUAD, SquadSection(data=str(tmp_path)), tmp_path, max_train_rows=5)
    assert (len(both.train), len(both.dev)) == (5, 4)
    assert both.describe()["dev"]["file"] == "dev-v1.1.json"
    lending = SquadSection(data=str(tmp_path), dev_articles_in_training=1)
    lent = read_squad(SQUAD, lending, tmp_path)
    assert (len(lent.train), len(lent.dev)) == (8, 2)
    assert lent.describe()["dev_articles_in_training"] == list(lent.lent)
    file = SquadSection(data=str(tmp_path / "dev-v1.1.json"))
    assert len(read_squad(SQUAD, file, tmp_path).dev) == 2


@pytest.mark.parametrize(
    ("dev", "words"),
    [
        (joined("1.1", "B", "C"), "share: article 'B'"),
        (
            change(tree(title="C"), "data/0/paragraphs/0/context", f"{CONTEXT} A"),
            "share: paragraph",
        ),
        (change(tree(title="C"), f"{QAS}/0/id", "A1"), "share: question id 'A1'"),
    ],
)
def test_what_is_on_both_sides_is_refused(tmp_path: Path, dev: Any, words: str) -> None:
    write(tmp_path / "train-v1.1.json", joined("1.1", "A", "B"))
    write(tmp_path / "dev-v1.1.json", dev)
    with pytest.raises(UserError, match=words):
        read_squad(SQUAD, SquadSection(data=str(tmp_path)), tmp_path)


def test_places_are_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAGICBERT_DATA", str(tmp_path))
    assert find_place("") == ""
    (tmp_path / "squad").mkdir()
    assert find_place("") == tmp_path / "squad"
    assert find_place("$MAGICBERT_DATA/squad") == tmp_path / "squad"
    assert find_place("someone/their_squad") == "someone/their_squad"
    for missing in ("./squad", "data/train.json", "a/b/c", str(tmp_path / "x")):
        with pytest.raises(UserError, match="no such file or folder"):
            find_place(missing)
    with pytest.raises(UserError, match=r"no train-v1.1.json or train-v1.1.json.gz"):
        read_squad(SQUAD, SquadSection(data=str(tmp_path)), tmp_path)


def hub_rows(title: str, *, unanswerable: bool) -> list[dict[str, Any]]:
    rows = []
    for row in (row_of(tree("v2.0", title), number) for number in range(3)):
        if row["answers"] or unanswerable:
            answers = {key: [answer[key] for answer in row["answers"]]
                       for key in ("text", "answer_start")}  # fmt: skip
            rows.append({"id": row["id"], "title": title, "context": f"{CONTEXT} {title}",
                         "question": row["question"], "answers": answers})  # fmt: skip
    return rows


def test_the_hub_gives_the_same_questions_as_the_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    splits = DatasetDict(
        train=Dataset.from_list(hub_rows("A", unanswerable=True)),
        validation=Dataset.from_list(hub_rows("B", unanswerable=True)),
    )
    monkeypatch.delenv("MAGICBERT_DATA", raising=False)
    monkeypatch.setattr(datasets, "load_dataset", lambda name: splits)
    data = read_squad(SQUAD_V2, SquadSection(), tmp_path)
    file = read_squad_file(write(tmp_path / "x.json", tree("v2.0", "A")), SQUAD_V2)
    assert data.train.rows == file.rows
    assert data.train.source.name == "rajpurkar/squad_v2:train"
    wrong = Dataset.from_list(hub_rows("A", unanswerable=True))
    with pytest.raises(UserError, match="question A3: answers: none, and it is not impossible"):
        convert_split("hub:train", wrong, SQUAD)


def test_an_unreachable_hub_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match="cannot be loaded"):
        read_squad(SQUAD, SquadSection(data="nobody/no_such_set"), tmp_path)


def test_the_embedded_task_is_well_formed_and_the_same_twice(tmp_path: Path) -> None:
    first = read_squad(EMBEDDED_SQUAD, SquadSection(), tmp_path / "a")
    second = read_squad(EMBEDDED_SQUAD, SquadSection(), tmp_path / "b")
    assert first == second
    assert (len(first.train), len(first.dev)) == (480, 120)
    for questions in (first.train, first.dev):
        share = sum(not row.has_answer for row in questions.rows) / len(questions)
        assert share == 0.2


def test_squad_comes_last_and_the_first_version_first() -> None:
    names = [task.name for task in find_all_tasks(["squad_v2", "rte", "squad"], mnli_first=True)]
    assert names == ["rte", "squad", "squad_v2"]
    with pytest.raises(UserError, match=r"'squad_v3'; known: .*squad_v2"):
        find_all_tasks(["squad_v3"], mnli_first=False)


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs MAGICBERT_DATA with squad/")
@pytest.mark.parametrize(
    ("task", "name", "count", "articles"),
    [
        (SQUAD, "train-v1.1", 11877, 44), (SQUAD, "dev-v1.1", 7532, 29),
        (SQUAD_V2, "train-v2.0", 4719, 10), (SQUAD_V2, "dev-v2.0", 6078, 16),
    ],
)  # fmt: skip
def test_real_files_are_read_whole(task: Any, name: str, count: int, articles: int) -> None:
    questions = read_squad_file(SHARED / f"{name}.json.gz", task)
    assert (len(questions), len(questions.articles)) == (count, articles)
    assert not questions.skipped
