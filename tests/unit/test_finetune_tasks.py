"""The table of tasks, the offline task, subsets, hub splits, submission files."""

from __future__ import annotations

import csv
import dataclasses
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from datasets import Dataset, DatasetDict

from magicbert.config.sections import FinetuneSection
from magicbert.data.embedded import DescribedObject
from magicbert.errors import UserError
from magicbert.finetune.embedded_task import distinct_objects, write_embedded_task
from magicbert.finetune.examples import Examples, Source, take_subset
from magicbert.finetune.glue_folder import read_folder
from magicbert.finetune.glue_hub import convert_splits
from magicbert.finetune.metrics import METRICS
from magicbert.finetune.submission import submission_text
from magicbert.finetune.task_data import glue_folder
from magicbert.finetune.tasks import EMBEDDED, GLUE_TASKS, TASKS, find_tasks


def some_objects(count: int) -> list[DescribedObject]:
    return [
        DescribedObject(f"module{item % 7}.call{item}", "(a, b)", f"Does thing\tnumber {item}.")
        for item in range(count)
    ]


def pairs_of(root: Path, split: str) -> list[dict[str, str]]:
    path = root / "Embedded" / f"{split}.tsv"
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream, delimiter="\t", quoting=csv.QUOTE_NONE))


def test_table_is_consistent() -> None:
    assert len(GLUE_TASKS) == 9
    for task in GLUE_TASKS:
        assert len(task.texts) == len(task.hub_texts)
        assert set(task.metrics) <= set(METRICS)
        assert task.is_regression == (task.bounds != (0.0, 0.0))
    assert {name: TASKS[name].main_metric for name in ("cola", "stsb", "mrpc")} == {
        "cola": "matthews", "stsb": "spearman", "mrpc": "accuracy",
    }  # fmt: skip


def test_unknown_tasks_are_all_named_and_mnli_comes_first() -> None:
    with pytest.raises(UserError, match=r"'sst', 'snli'; known: cola"):
        find_tasks(["sst", "rte", "snli"], mnli_first=True)
    names = [task.name for task in find_tasks(["rte", "mnli", "rte", "cola"], mnli_first=True)]
    assert names == ["mnli", "rte", "cola"]


def test_embedded_task_is_balanced_disjoint_and_the_same_twice(tmp_path: Path) -> None:
    objects = some_objects(90)
    write_embedded_task(tmp_path / "a", objects)
    write_embedded_task(tmp_path / "b", list(reversed(objects)))
    sides: dict[str, tuple[set[str], set[str]]] = {}
    for split, expected in (("train", 2 * 68), ("dev", 2 * 22)):
        pairs = pairs_of(tmp_path / "a", split)
        assert pairs == pairs_of(tmp_path / "b", split)
        assert [pair["index"] for pair in pairs] == [str(row) for row in range(expected)]
        sides[split] = ({pair["question"] for pair in pairs}, {pair["sentence"] for pair in pairs})
        for column in ("question", "sentence"):
            seen = Counter((pair[column], pair["label"]) for pair in pairs)
            assert set(seen.values()) == {1}
            assert len(seen) == expected
        for pair in pairs:
            number = pair["question"].partition("call")[2].partition("(")[0]
            belongs = pair["sentence"] == f"Does thing number {number}."
            assert belongs == (pair["label"] == "entailment")
    assert not sides["train"][0] & sides["dev"][0]
    assert not sides["train"][1] & sides["dev"][1]


def test_wrong_descriptions_come_from_the_same_module(tmp_path: Path) -> None:
    write_embedded_task(tmp_path, some_objects(700))
    module_of = {f"Does thing number {number}.": number % 7 for number in range(700)}
    for pair in pairs_of(tmp_path, "train"):
        assert pair["question"].startswith(f"module{module_of[pair['sentence']]}.")


def test_objects_that_share_a_description_count_once() -> None:
    first = DescribedObject("a.f", "()", "Closes the file.")
    second = DescribedObject("b.g", "(x)", "Closes  the file.")
    assert [item.name for item in distinct_objects([second, first])] == ["a.f"]


def test_lone_modules_and_too_few_objects(tmp_path: Path) -> None:
    lone = [
        dataclasses.replace(item, name=f"m{number}.f")
        for number, item in enumerate(some_objects(8))
    ]
    write_embedded_task(tmp_path, lone)
    assert Counter(pair["label"] for pair in pairs_of(tmp_path, "train")).keys() == set(
        EMBEDDED.labels
    )
    with pytest.raises(UserError, match="7 documented objects found, 8 are needed"):
        write_embedded_task(tmp_path, lone[:7])


def test_subsets_are_fixed_nested_and_recorded() -> None:
    rows = tuple(str(row) for row in range(1000))
    examples = Examples((rows,), tuple(range(1000)), Source("train.tsv", "digest", 1000))
    small, large = take_subset(examples, 50), take_subset(examples, 200)
    assert set(small.texts[0]) < set(large.texts[0])
    assert [str(label) for label in small.labels or ()] == list(small.texts[0])
    assert small.texts == take_subset(examples, 50).texts
    assert small.source.num_rows == 1000
    assert small.source.subset
    assert take_subset(examples, 0) is examples
    assert take_subset(examples, 1000) is examples


def test_hub_splits_become_the_same_rows() -> None:
    columns = {"premise": ["a", "b"], "hypothesis": ["c", "NA"], "label": [2, 0]}
    unlabelled = Dataset.from_dict({**columns, "label": [-1, -1]})
    splits = DatasetDict(
        train=Dataset.from_dict(columns),
        validation_matched=Dataset.from_dict(columns),
        validation_mismatched=Dataset.from_dict(columns),
        test_matched=unlabelled,
    )
    data = convert_splits(TASKS["mnli"], splits)
    assert data.train.texts == (("a", "b"), ("c", "NA"))
    assert data.train.labels == (2, 0)
    assert data.parts[0].test is not None
    assert data.parts[0].test.labels is None
    assert data.parts[1].test is None
    with pytest.raises(UserError, match="train row 0: label -1"):
        convert_splits(TASKS["mnli"], DatasetDict({**splits, "train": unlabelled}))


def test_data_folder_is_the_given_one_then_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MAGICBERT_DATA", raising=False)
    assert glue_folder(FinetuneSection()) is None
    monkeypatch.setenv("MAGICBERT_DATA", str(tmp_path))
    assert glue_folder(FinetuneSection()) is None
    (tmp_path / "glue").mkdir()
    assert glue_folder(FinetuneSection()) == tmp_path / "glue"
    assert glue_folder(FinetuneSection(data="$MAGICBERT_DATA")) == tmp_path
    with pytest.raises(UserError, match="is not a folder"):
        glue_folder(FinetuneSection(data=str(tmp_path / "nowhere")))


@pytest.mark.parametrize(
    ("task", "predictions", "lines"),
    [
        ("mnli", [2, 0, 1], ["0\tcontradiction", "1\tentailment", "2\tneutral"]),
        ("rte", [1, 0], ["0\tnot_entailment", "1\tentailment"]),
        ("cola", [1, 0], ["0\t1", "1\t0"]),
        ("stsb", [0.0, 4.98765], ["0\t0.000", "1\t4.988"]),
    ],
)
def test_submission_format(task: str, predictions: list[float], lines: list[str]) -> None:
    written = submission_text(TASKS[task], np.array(predictions, dtype=np.float64)).split("\n")
    assert written == ["index\tprediction", *lines, ""]


ROWS = {
    "cola": (8551, [1043], "train.tsv"),
    "sst2": (67349, [872], "train.tsv.gz"),
    "mrpc": (3668, [408], "train.tsv"),
    "stsb": (5749, [1500], "train.tsv"),
    "qqp": (22249, [9915], "train-subset.tsv.gz"),
    "mnli": (16227, [9815], "train-subset.tsv.gz"),
    "qnli": (3298, [5463], "train-subset.tsv"),
    "rte": (2490, [277], "train.tsv"),
    "wnli": (635, [71], "train.tsv"),
}


@pytest.mark.data
@pytest.mark.parametrize("name", ROWS)
def test_real_files_give_all_their_rows(name: str) -> None:
    root = glue_folder(FinetuneSection())
    if root is None:
        pytest.skip("MAGICBERT_DATA is not set")
    data = read_folder(TASKS[name], root)
    num_train, num_dev, file = ROWS[name]
    assert len(data.train) == num_train
    assert [len(item.dev) for item in data.parts] == num_dev
    assert data.train.source.name == file
    assert not data.train.source.skipped_lines
