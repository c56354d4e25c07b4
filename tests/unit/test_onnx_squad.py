"""Every form of a model answers SQuAD: torch gets what fine-tuning reported, int8 its own score."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path
from typing import Any

import pytest
from tiny_answerer import save_answerer, write_voyages

from magicbert import cli
from magicbert.comparison.answer_rows import AnswerRows
from magicbert.comparison.loading import Runnable, load_runnable
from magicbert.config.reading import load_config
from magicbert.config.roots import ExportConfig, FinetuneConfig
from magicbert.config.sections import FinetuneSection, OnnxSection, RunSection, SquadSection
from magicbert.errors import ConfigError, UserError
from magicbert.finetune.squad.recorded import read_recorded_squad
from magicbert.records import read_record
from magicbert.stages import finetune
from magicbert.stages.export_dev_rows import find_dev_rows

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

# Two of the articles of dev were trained on: who forgets it has other questions.
WINDOWS = SquadSection(
    max_length=40, overlap=8, max_question_tokens=12, max_answer_tokens=5, num_best=4,
    dev_articles_in_training=2,
)  # fmt: skip


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("squad")


@pytest.fixture(scope="module")
def kept(root: Path) -> Path:
    """A model that fine-tuning on the embedded task kept."""
    texts = write_voyages(root / "files", 48)
    model = save_answerer(root / "encoder", texts)
    settings = FinetuneSection(
        model=str(model), tasks=("embedded_squad",), learning_rates=(0.003,), seeds=(0,),
        num_epochs=2, batch_size=16, keep_model=True,
    )  # fmt: skip
    run = RunSection(root=str(root), name="x")
    finetune.run(FinetuneConfig(run=run, finetune=settings, squad=WINDOWS))
    return root / "x" / "finetune" / "models" / "embedded_squad"


@pytest.fixture(scope="module")
def loaded(kept: Path) -> Runnable:
    return load_runnable(str(kept))


def rows_of(loaded: Runnable, task: str, squad: SquadSection, **changes: Any) -> AnswerRows:
    options = OnnxSection(enabled=True, model=str(loaded.folder), task=task, **changes)
    found = find_dev_rows(ExportConfig(onnx=options, squad=squad), loaded)
    assert isinstance(found, AnswerRows)
    return found


def test_torch_has_the_score_of_the_fine_tuning_and_int8_stands_beside(
    root: Path, kept: Path
) -> None:
    (row,) = read_record(root / "x" / "finetune" / "results.json", "magicbert/finetune/1")["rows"]
    words = ["export", "--onnx", "--run.root", str(root), "--run.name", "x"]
    words += ["--onnx.model", str(kept), "--onnx.task", "embedded_squad", "--onnx.rounds", "2"]
    cli.main([*words, "--onnx.length", "8"])
    folder = root / "x" / "onnx"
    record = read_record(folder / "onnx.json", "magicbert/onnx/1")
    forms = record["forms"]
    assert record["score"]["metric"] == row["metric"] == "f1"
    assert record["score"]["rows"] == 10 * 2 * 5  # articles, paragraphs, questions
    assert row["score"] > 0.2  # more than a model has that finds no answer
    assert forms["torch"]["score"] == row["score"]
    assert forms["torch"]["metrics"] == row["metrics"]
    assert forms["onnx"]["metrics"] == pytest.approx(row["metrics"], abs=0.02)
    assert set(forms["int8"]["metrics"]) == set(row["metrics"])
    assert "others than" not in record["score"]["source"]
    exact = f"| {row['score']:.4f} | {row['metrics']['exact']:.4f} |"
    assert exact in (folder / "README.md").read_text()


def test_what_the_model_says_of_its_windows_counts_until_it_is_told_otherwise(
    loaded: Runnable,
) -> None:
    recorded = rows_of(loaded, "embedded_squad", SquadSection()).squad.settings
    assert recorded == WINDOWS
    other = SquadSection(max_length=48, overlap=12, max_question_tokens=16)
    with pytest.raises(UserError, match=r"squad\.max_length: 48, .* 40; .*as_finetuned false"):
        rows_of(loaded, "embedded_squad", other)
    free = rows_of(loaded, "embedded_squad", other, as_finetuned=False)
    assert free.squad.settings == other
    assert free.num_rows == 12 * 2 * 5


def test_other_questions_than_those_of_the_fine_tuning_are_named(
    root: Path, loaded: Runnable, caplog: pytest.LogCaptureFixture
) -> None:
    files = SquadSection(data=str(root / "files"))
    with caplog.at_level(logging.WARNING, logger="magicbert"):
        rows = rows_of(loaded, "squad_v2", files)
    assert "others than those" in rows.source
    assert "others than those" in caplog.text
    # Of another task all articles are asked about: none of its file is known to be trained on.
    assert rows.num_rows == 12 * 2 * 5
    windows = dataclasses.replace(WINDOWS, data=files.data, dev_articles_in_training=0)
    assert rows.squad.settings == windows
    assert rows_of(loaded, "squad", files).num_rows == 12 * 2 * 4


def test_what_cannot_be_asked_is_one_message(root: Path, loaded: Runnable) -> None:
    assert read_recorded_squad(root / "encoder") is None
    with pytest.raises(UserError, match="embedded_squad needs a model for question answering"):
        rows_of(load_runnable(str(root / "encoder")), "embedded_squad", SquadSection())
    with pytest.raises(UserError, match="embedded needs a sequence classifier"):
        rows_of(loaded, "embedded", SquadSection())
    with pytest.raises(UserError, match=r"onnx\.task: unknown 'squad_v3'; known: .*squad_v2"):
        rows_of(loaded, "squad_v3", SquadSection())


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"onnx.task": "cola", "squad.overlap": "9"}, "squad: is for onnx.task"),
        ({"onnx.task": "squad", "onnx.data": "glue"}, "the files of SQuAD are squad.data"),
        ({"onnx.task": "squad", "squad.v1_warm_start": "true"}, "squad.v1_warm_start"),
    ],
)
def test_options_of_the_other_kind_of_task_are_refused(
    options: dict[str, str], problem: str
) -> None:
    given = {"onnx.enabled": "true", "onnx.model": "m", **options}
    with pytest.raises(ConfigError, match=problem):
        load_config(ExportConfig, None, given)
