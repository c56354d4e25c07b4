"""A model fine-tuned on questions answers through `pipeline` where magicbert is not installed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

import pytest
from tiny_answerer import save_answerer, write_voyages

from magicbert.config.roots import FinetuneConfig
from magicbert.config.sections import FinetuneSection, RunSection, SquadSection
from magicbert.finetune.grid import RESULTS_SCHEMA
from magicbert.finetune.squad.squad_file import read_squad_file
from magicbert.finetune.squad.task import SQUAD_V2
from magicbert.records import read_record
from magicbert.stages import finetune

PROBE = Path(__file__).with_name("answering_model_probe.py")
NUM_QUESTIONS = 20


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns the folder of a stage that kept its models, which have two widths."""
    root = tmp_path_factory.mktemp("runs")
    texts = write_voyages(root / "squad", 4)
    model = save_answerer(root / "model", texts, architecture="mha4w24-ffnw24-mha4-ffn")
    settings = FinetuneSection(
        model=str(model), tasks=("squad_v2", "embedded"), learning_rates=(0.003,), seeds=(0,),
        num_epochs=4, batch_size=8, keep_model=True,
    )  # fmt: skip
    squad = SquadSection(
        data=str(root / "squad"), max_length=48, overlap=12, max_question_tokens=16,
        max_answer_tokens=6,
    )  # fmt: skip
    run = RunSection(root=str(root), name="x")
    finetune.run(FinetuneConfig(run=run, finetune=settings, squad=squad))
    return root / "x" / "finetune"


@pytest.fixture(scope="module")
def report(stage: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the probe saw."""
    elsewhere = tmp_path_factory.mktemp("clean")
    dev = read_squad_file(stage.parents[1] / "squad" / "dev-v2.0.json", SQUAD_V2)
    rows = [{"question": row.text, "context": row.context} for row in dev.rows[:NUM_QUESTIONS]]
    (elsewhere / "questions.json").write_text(json.dumps(rows))
    arguments = (
        stage / "models" / "squad_v2", sysconfig.get_path("purelib"),
        elsewhere / "questions.json", elsewhere / "report.json",
    )  # fmt: skip
    kept = ("PATH", "LANG", "LD_LIBRARY_PATH", "OMP_NUM_THREADS", "TMPDIR")
    environment = {name: os.environ[name] for name in kept if name in os.environ}
    environment |= {
        "HOME": str(elsewhere), "HF_HOME": str(elsewhere / "hf"),
        "HF_MODULES_CACHE": str(elsewhere / "modules"), "HF_HUB_OFFLINE": "1",
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-I", "-S", str(PROBE), *map(str, arguments)],
        cwd=elsewhere, env=environment, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    seen: dict[str, Any] = json.loads((elsewhere / "report.json").read_text())
    return seen


def test_the_pipeline_answers_as_the_stage_predicted(stage: Path, report: dict[str, Any]) -> None:
    predicted = json.loads((stage / "predictions" / "squad_v2" / "predictions.json").read_text())
    answers = [answer["answer"] for answer in report["answers"]]
    assert answers == list(predicted.values())[:NUM_QUESTIONS]
    assert report["spelled"] == answers
    assert report["class"] == "MagicBertForQuestionAnswering"


def test_a_model_of_several_widths_is_fine_tuned_on_both_kinds_of_tasks(stage: Path) -> None:
    record = read_record(stage / "results.json", RESULTS_SCHEMA)
    assert {row["task"] for row in record["summary"]} == {"squad_v2", "embedded"}
    for task, kind in (("squad_v2", "QuestionAnswering"), ("embedded", "SequenceClassification")):
        config = json.loads((stage / "models" / task / "config.json").read_text())
        assert config["architecture"] == "mha4w24-ffnw24-mha4-ffn"
        assert config["architectures"] == [f"MagicBertFor{kind}"]


def test_several_answers_come_best_first_and_are_not_empty(report: dict[str, Any]) -> None:
    scores = [answer["score"] for answer in report["several"]]
    assert scores == sorted(scores, reverse=True)
    assert len(scores) == 3
    assert all(answer["answer"] for answer in report["several"])


def test_an_empty_question_is_refused(report: dict[str, Any]) -> None:
    assert report["refusal"] == "question: give a text that is not empty"
