"""The stage on SQuAD with tiny models: it learns, its files fit, its model can be used."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tiny_answerer import save_answerer, write_voyages
from tiny_bert import save_tiny_bert

from magicbert.config.roots import FinetuneConfig
from magicbert.config.sections import FinetuneSection, RunSection, SquadSection
from magicbert.errors import UserError
from magicbert.finetune.kept_model import KeptModel
from magicbert.finetune.pretrained import describe_pretrained, load_answerer, load_tokenizer
from magicbert.finetune.squad.scoring import mean_scores, score_answers
from magicbert.finetune.squad.squad_file import read_squad_file
from magicbert.finetune.squad.task import EMBEDDED_SQUAD
from magicbert.records import read_record
from magicbert.stages.finetune import run


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("squad")


@pytest.fixture(scope="module")
def model(files: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_answerer(tmp_path_factory.mktemp("models") / "tiny", write_voyages(files, 4))


def configure(root: Path, model: Path, files: Path | str, **changes: Any) -> FinetuneConfig:
    settings = FinetuneSection(
        model=str(model), tasks=("squad_v2",), learning_rates=(0.003,), seeds=(0,), num_epochs=1,
        batch_size=16,
    )  # fmt: skip
    squad = SquadSection(
        data=str(files), max_length=48, overlap=12, max_question_tokens=16, max_answer_tokens=6,
        num_best=5,
    )  # fmt: skip
    of_squad = {name: changes.pop(name) for name in list(changes) if hasattr(squad, name)}
    return FinetuneConfig(
        run=RunSection(root=str(root), name="x"),
        finetune=dataclasses.replace(settings, **changes),
        squad=dataclasses.replace(squad, **of_squad),
    )


def stage(root: Path) -> Path:
    return root / "x" / "finetune"


def results_of(root: Path) -> dict[str, Any]:
    return read_record(stage(root) / "results.json", "magicbert/finetune/1")


def without_seconds(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: row[name] for name in row if name != "seconds"} for row in rows]


def test_learns_the_embedded_task_and_its_files_say_what_its_row_says(
    tmp_path: Path, model: Path
) -> None:
    config = configure(tmp_path, model, "", tasks=("embedded_squad",), num_epochs=5)
    run(config)
    results = results_of(tmp_path)
    (row,) = results["rows"]
    assert (row["metric"], row["train_rows"]) == ("f1", 480)
    assert row["train_windows"] >= 480
    # One question in five has no answer: a model that finds nothing has an F1 of 0.2.
    assert row["score"] == row["metrics"]["f1"] > 0.4
    assert results["data"]["embedded_squad"]["dev"]["unanswerable"] == 24

    folder = stage(tmp_path) / "predictions" / "embedded_squad"
    texts, odds, nbest = (
        json.loads((folder / name).read_text())
        for name in ("predictions.json", "null_odds.json", "nbest_predictions.json")
    )
    dev = read_squad_file(stage(tmp_path) / "tasks/embedded_squad/dev-v2.0.json", EMBEDDED_SQUAD)
    assert list(texts) == list(odds) == list(nbest) == [question.id for question in dev.rows]
    again = mean_scores(dev.rows, score_answers(dev.rows, texts, "2.0"), "2.0")
    assert {name: row["metrics"][name] for name in again} == pytest.approx(again)
    assert row["metrics"]["best_exact"] >= again["exact"]
    for name, answers in nbest.items():
        assert (texts[name] == "") == (odds[name] > row["null_threshold"])
        words = [answer["text"] for answer in answers if answer["text"]]
        assert texts[name] in ("", words[0])
        assert len(words) == 5
        assert sum(answer["probability"] for answer in answers) == pytest.approx(1.0)

    run(config)
    assert results_of(tmp_path)["rows"] == results["rows"]  # nothing was trained again


def test_version_two_starts_from_version_one_and_both_keep_their_model(
    tmp_path: Path, model: Path, files: Path
) -> None:
    tasks = ("squad_v2", "squad")
    run(configure(tmp_path, model, files, tasks=tasks, v1_warm_start=True, keep_model=True))
    first, second = results_of(tmp_path)["rows"]
    assert (first["task"], second["task"]) == ("squad", "squad_v2")
    assert set(first["metrics"]) == {"exact", "f1"}
    assert "warm_start" not in first
    assert second["warm_start"]["score"] == first["score"]
    predictions = stage(tmp_path) / "predictions"
    assert not (predictions / "squad" / "null_odds.json").exists()
    assert all(json.loads((predictions / "squad" / "predictions.json").read_text()).values())

    kept = stage(tmp_path) / "models" / "squad"
    manifest = read_record(kept / "manifest.json", "magicbert/export/1")
    assert manifest["provenance"]["cell"]["score"] == first["score"]
    assert manifest["provenance"]["settings"]["rows"]["train"]["file"] == "train-v1.1.json"
    config = json.loads((kept / "config.json").read_text())
    assert config["architectures"] == ["MagicBertForQuestionAnswering"]
    assert config.get("null_threshold") is None
    tokenizer = json.loads((kept / "tokenizer.json").read_text())
    assert (tokenizer["truncation"], tokenizer["padding"]) == (None, None)
    last = json.loads((kept.with_name("squad_v2") / "config.json").read_text())
    assert last["null_threshold"] == second["null_threshold"]

    # A kept model is a start like any other, and brings its head.
    start = describe_pretrained("kept", str(kept), False)
    loaded = load_answerer(start).state_dict()
    weights = load_file(kept / "model.safetensors")
    assert torch.equal(loaded["ends.weight"], weights["ends.weight"])
    run(configure(tmp_path / "on", kept, files))
    assert results_of(tmp_path / "on")["model_identity"] == start.identity


def test_the_better_of_two_seeds_is_kept(tmp_path: Path, model: Path, files: Path) -> None:
    run(configure(tmp_path, model, files, seeds=(0, 1, 2), keep_model=True))
    rows = results_of(tmp_path)["rows"]
    manifest = read_record(
        stage(tmp_path) / "models" / "squad_v2" / "manifest.json", "magicbert/export/1"
    )
    assert manifest["provenance"]["cell"]["score"] == max(row["score"] for row in rows)


def test_a_model_of_another_kind_is_kept_with_the_code_of_the_pipeline_alone(
    tmp_path: Path,
) -> None:
    start = describe_pretrained("b", str(save_tiny_bert(tmp_path / "bert", ["word"])), False)
    kept = KeptModel(tmp_path / "kept", start, load_tokenizer(start))
    kept.offer(load_answerer(start), {"score": 0.5, "null_threshold": 1.5}, {"overlap": 4})
    code = {path.name for path in kept.folder.glob("*.py")}
    assert code == {"answer_spans.py", "question_answering_pipeline.py"}
    config = json.loads((kept.folder / "config.json").read_text())
    assert config["null_threshold"] == 1.5
    assert set(config["custom_pipelines"]) == {"question-answering"}
    assert "auto_map" not in config
    identity = describe_pretrained("kept", str(kept.folder), False).identity

    other = load_answerer(start)  # with another new head
    kept.offer(other, {"score": 0.4, "null_threshold": 1.0}, {"overlap": 4})
    assert describe_pretrained("kept", str(kept.folder), False).identity == identity
    kept.offer(other, {"score": 0.4, "null_threshold": 1.0}, {"overlap": 5})
    assert describe_pretrained("kept", str(kept.folder), False).identity != identity


def test_a_model_that_diverges_counts_as_zero_and_says_nothing(
    tmp_path: Path, model: Path, files: Path
) -> None:
    run(configure(tmp_path, model, files, learning_rates=(1e30,), keep_model=True))
    (row,) = results_of(tmp_path)["rows"]
    assert row["diverged"] is True
    assert set(row["metrics"].values()) == {0.0}
    folder = stage(tmp_path) / "predictions" / "squad_v2"
    assert set(json.loads((folder / "predictions.json").read_text()).values()) == {""}
    assert "NaN" not in (folder / "null_odds.json").read_text()
    assert not (stage(tmp_path) / "models").exists()


def test_other_windows_are_another_cell_and_the_same_seed_the_same_one(
    tmp_path: Path, model: Path, files: Path
) -> None:
    run(configure(tmp_path / "one", model, files, max_train_rows=16))
    run(configure(tmp_path / "two", model, files, max_train_rows=16))
    one, two = results_of(tmp_path / "one"), results_of(tmp_path / "two")
    assert without_seconds(one["rows"]) == without_seconds(two["rows"])
    run(configure(tmp_path / "one", model, files, max_train_rows=16, overlap=4))
    assert len(list((stage(tmp_path / "one") / "cells").iterdir())) == 2


def test_nothing_is_written_when_something_is_wrong(
    tmp_path: Path, model: Path, files: Path
) -> None:
    with pytest.raises(UserError, match=r"leave 77 .* must be more than the 90"):
        run(configure(tmp_path, model, files, max_length=200, overlap=90))
    with pytest.raises(UserError, match="no such file or folder"):
        run(configure(tmp_path, model, "./nowhere"))
    (tmp_path / "bad").mkdir()
    text = (files / "train-v2.0.json").read_text().replace('"answer_start": ', '"answer_start": 1')
    (tmp_path / "bad" / "train-v2.0.json").write_text(text)
    with pytest.raises(UserError, match="is not at its offset"):
        run(configure(tmp_path / "runs", model, tmp_path / "bad"))
    assert {path.name for path in tmp_path.iterdir()} == {"bad"}
