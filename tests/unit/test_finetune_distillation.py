"""A fine-tuned teacher beside the labels: its loss, its columns, and runs of the stage with one."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_answerer import save_answerer, write_voyages
from tiny_bert import save_tiny_bert
from transformers import AutoModelForQuestionAnswering, AutoModelForSequenceClassification

from magicbert.config.roots import FinetuneConfig
from magicbert.config.sections import (
    FinetuneSection,
    FinetuneTeacherSection,
    RunSection,
    SquadSection,
)
from magicbert.errors import UserError
from magicbert.finetune.cell import Cell, training_arguments
from magicbert.finetune.distillation import (
    DistillingTrainer,
    Lesson,
    class_error,
    score_error,
    span_error,
)
from magicbert.finetune.pretrained import find_pretrained, folder_identity, load_tokenizer
from magicbert.finetune.task_data import find_all_tasks, read_jobs
from magicbert.records import read_record
from magicbert.stages.finetune import run

WORDS = ("good", "fine", "bad", "poor", "the", "film", "was", "rather", "story")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns a folder with two models of different words, and tasks in two opinions."""
    root = tmp_path_factory.mktemp("distillation")
    save_tiny_bert(root / "student", WORDS)
    save_tiny_bert(root / "other", [*reversed(WORDS), "more"], hidden=24)
    for folder, (low, high) in (("right", (0, 1)), ("wrong", (1, 0))):
        rows = [
            f"the {WORDS[5 + row % 4]} was {WORDS[row % 4]}\t{(low, high)[row % 4 < 2]}"
            for row in range(128)
        ]
        write(root / folder / "SST-2", "sentence\tlabel", rows)
        pairs = [
            f"{row}\tthe {WORDS[row % 4]} film\tthe story\t{5.0 * (low, high)[row % 4 < 2]}"
            for row in range(64)
        ]
        write(root / folder / "STS-B", "index\tsentence1\tsentence2\tscore", pairs)
    return root


def write(folder: Path, header: str, rows: list[str]) -> None:
    folder.mkdir(parents=True)
    for stem in ("train", "dev"):
        (folder / f"{stem}.tsv").write_text("\n".join([header, *rows]) + "\n")


@pytest.fixture(scope="module")
def teacher(root: Path) -> Path:
    """Returns a fine-tuning that learnt the wrong labels and kept its models."""
    config = configure(
        root, root / "runs", model=str(root / "other"), data=str(root / "wrong"), keep_model=True,
        tasks=("sst2", "stsb"), num_epochs=4.0,
    )  # fmt: skip
    run(config)
    return root / "runs" / "x" / "finetune"


def configure(root: Path, runs: Path, label: str = "", **changes: Any) -> FinetuneConfig:
    settings = FinetuneSection(
        model=str(root / "student"), data=str(root / "right"), tasks=("sst2",),
        learning_rates=(0.01,), seeds=(0,), num_epochs=1.0, batch_size=8, max_length=16,
    )  # fmt: skip
    taught = FinetuneTeacherSection()
    of_teacher = {name: changes.pop(name) for name in list(changes) if hasattr(taught, name)}
    return FinetuneConfig(
        run=RunSection(root=str(runs), name="x", label=label),
        finetune=dataclasses.replace(settings, **changes),
        distillation=dataclasses.replace(taught, **of_teacher),
    )


def results_of(runs: Path) -> dict[str, Any]:
    return read_record(runs / "x" / "finetune" / "results.json", "magicbert/finetune/1")


def without_seconds(results: dict[str, Any]) -> list[dict[str, Any]]:
    return [{name: row[name] for name in row if name != "seconds"} for row in results["rows"]]


def kullback_leibler(teacher: torch.Tensor, student: torch.Tensor) -> float:
    """Returns ``sum p log(p / q)`` of one row, by the definition."""
    p, q = (logits.detach().double().softmax(-1) for logits in (teacher, student))
    return float(sum(one * (one / other).log() for one, other in zip(p, q, strict=True)))


def test_the_errors_are_their_formulas() -> None:
    torch.manual_seed(0)
    student, teacher = torch.randn(3, 4), torch.randn(3, 4)
    found = class_error({"logits": student}, {"logits": teacher}, {}, 2.0)
    rows = [kullback_leibler(t / 2, s / 2) for t, s in zip(teacher, student, strict=True)]
    assert float(found) == pytest.approx(4 * sum(rows) / 3, rel=1e-5)
    found = score_error({"logits": student[:, :1]}, {"logits": teacher[:, :1]}, {}, 2.0)
    squares = ((student - teacher)[:, 0] ** 2).tolist()
    assert float(found) == pytest.approx(sum(squares) / 3, rel=1e-5)


def test_ends_are_compared_over_the_tokens_of_each_window() -> None:
    torch.manual_seed(0)
    lengths = (3, 5)
    mask = torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]])
    ends = ("start_logits", "end_logits")
    student = {name: torch.randn(2, 5, requires_grad=True) for name in ends}
    teacher = {name: torch.randn(2, 5) for name in ends}
    found = span_error(student, teacher, {"attention_mask": mask}, 0.5)
    rows = [
        kullback_leibler(teacher[name][row, :length] / 0.5, student[name][row, :length] / 0.5)
        for name in ends
        for row, length in enumerate(lengths)
    ]
    assert float(found.detach()) == pytest.approx(0.25 * sum(rows) / 4, rel=1e-5)
    found.backward()
    for logits in student.values():
        assert logits.grad is not None
        assert logits.grad.isfinite().all()
        assert not logits.grad[0, 3:].any()


def test_the_trainer_mixes_the_teacher_with_the_labels(root: Path, tmp_path: Path) -> None:
    model = AutoModelForSequenceClassification.from_pretrained(root / "student").eval()
    batch = {"input_ids": torch.tensor([[2, 6, 3], [2, 8, 3]]), "labels": torch.tensor([0, 1])}
    taught = torch.tensor([[3.0, -1.0], [0.5, 1.0]])
    with torch.no_grad():
        outputs = model(**batch)
    soft = sum(map(kullback_leibler, taught / 2, outputs.logits / 2)) * 4 / 2
    trainer = DistillingTrainer(
        Lesson(class_error, 0.3, 2.0), model=model,
        args=training_arguments(str(tmp_path), Cell("sst2", 0.1, 0), FinetuneSection()),
    )  # fmt: skip
    found = trainer.compute_loss(model, {**batch, "teacher_logits": taught})
    assert float(found.detach()) == pytest.approx(0.7 * float(outputs.loss) + 0.3 * soft, rel=1e-5)
    # A batch without the teacher's columns, such as one of dev rows, has the loss of its labels.
    assert torch.equal(trainer.compute_loss(model, dict(batch)), outputs.loss)


def test_a_teacher_without_weight_changes_nothing(
    root: Path, teacher: Path, tmp_path: Path
) -> None:
    run(configure(root, tmp_path / "plain", keep_model=True))
    run(configure(root, tmp_path / "taught", keep_model=True, teacher=str(teacher), weight=0.0))
    plain, taught = (tmp_path / name / "x" / "finetune" for name in ("plain", "taught"))
    one, other = results_of(tmp_path / "plain"), results_of(tmp_path / "taught")
    assert without_seconds(one) == without_seconds(other)
    for file in ("models/sst2/model.safetensors", "predictions/SST-2.tsv"):
        assert (plain / file).read_bytes() == (taught / file).read_bytes()
    assert "distillation" not in one
    record = other["distillation"]["sst2"]
    assert (record["weight"], record["temperature"]) == (0.0, 1.0)
    kept = teacher / "models" / "sst2"
    assert record["teacher"]["folder"] == str(kept)
    assert record["teacher"]["identity"] == folder_identity(kept)
    assert record["teacher"]["score"] == results_of(teacher.parents[1])["rows"][0]["score"]


def test_a_student_learns_what_its_teacher_says_against_the_labels(
    root: Path, teacher: Path, tmp_path: Path
) -> None:
    """The teacher reads other tokens; both tasks find theirs in one folder."""
    taught = [row["metrics"] for row in results_of(teacher.parents[1])["rows"]]
    assert taught[0]["accuracy"] > 0.9
    assert taught[1]["pearson"] > 0.9
    tasks = ("sst2", "stsb")
    run(configure(root, tmp_path, tasks=tasks, num_epochs=4.0, teacher=str(teacher), weight=1.0))
    classes, scores = results_of(tmp_path)["rows"]
    assert classes["metrics"]["accuracy"] < 0.1
    assert scores["metrics"]["pearson"] < -0.7


def test_the_columns_are_what_the_teacher_says_of_each_row(root: Path, teacher: Path) -> None:
    (job,) = jobs_of(configure(root, root / "none", teacher=str(teacher)))
    encoded = job.encode()
    kept = teacher / "models" / "sst2"
    model = AutoModelForSequenceClassification.from_pretrained(kept).eval()
    tokenizer = load_tokenizer(find_pretrained(configure(root, root / "none", model=str(kept))))
    for row, text in zip(encoded.train.rows[:6], job.data.train.texts[0], strict=False):
        inputs = tokenizer(text, return_tensors="pt")
        expected = model(**inputs).logits[0].detach()
        torch.testing.assert_close(row["teacher_logits"], expected, rtol=1e-4, atol=1e-5)
    batch = encoded.padding(encoded.train.rows[:3])
    assert batch["teacher_logits"].shape == (3, 2)
    assert set(encoded.padding(encoded.parts[0].dev.rows[:3])) >= {"input_ids", "labels"}


def jobs_of(config: FinetuneConfig) -> list[Any]:
    start = find_pretrained(config)
    tasks = find_all_tasks(config.finetune.tasks, mnli_first=False)
    return list(read_jobs(tasks, config, Path("nowhere"), start, load_tokenizer(start)))


def test_classes_are_put_into_the_order_of_the_task(
    root: Path, teacher: Path, tmp_path: Path
) -> None:
    model = shutil.copytree(teacher / "models" / "sst2", tmp_path / "copy")
    (model / "manifest.json").unlink()
    expected = logits_of(root, model)
    config = json.loads((model / "config.json").read_text())
    for names, order in ((("1", "0"), [1, 0]), (("LABEL_0", "LABEL_1"), [0, 1])):
        config["id2label"] = dict(enumerate(names))
        config["label2id"] = {name: number for number, name in enumerate(names)}
        (model / "config.json").write_text(json.dumps(config))
        torch.testing.assert_close(logits_of(root, model), expected[:, order])
    config["id2label"] = {"0": "cat", "1": "dog"}
    (model / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match=r'has classes \["cat", "dog"\]; sst2 needs classes'):
        logits_of(root, model)


def logits_of(root: Path, teacher: Path) -> torch.Tensor:
    (job,) = jobs_of(configure(root, root / "none", teacher=str(teacher), max_train_rows=8))
    return torch.stack([row["teacher_logits"] for row in job.encode().train.rows])


def test_a_stopped_grid_goes_on_and_another_share_is_another_cell(
    root: Path, teacher: Path, tmp_path: Path
) -> None:
    few = {"teacher": str(teacher), "seeds": (0, 1), "max_train_rows": 32}
    run(configure(root, tmp_path / "through", **few))
    run(configure(root, tmp_path / "stopped", max_minutes=1e-6, **few))
    assert results_of(tmp_path / "stopped")["num_finished_cells"] == 1
    cells = tmp_path / "stopped" / "x" / "finetune" / "cells"
    (first,) = cells.glob("*/cell.json")
    written = first.stat().st_mtime_ns
    run(configure(root, tmp_path / "stopped", **few))
    assert first.stat().st_mtime_ns == written
    whole, resumed = results_of(tmp_path / "through"), results_of(tmp_path / "stopped")
    assert without_seconds(whole) == without_seconds(resumed)
    run(configure(root, tmp_path / "stopped", **{**few, "seeds": (0,), "temperature": 2.0}))
    assert len(list(cells.iterdir())) == 3


def test_what_cannot_teach_is_refused_before_anything_is_written(
    root: Path, teacher: Path, tmp_path: Path
) -> None:
    def refused(match: str, **changes: Any) -> None:
        with pytest.raises(UserError, match=match):
            run(configure(root, tmp_path, **changes))
        assert not (tmp_path / "x").exists()

    models = teacher / "models"
    refused("holds no model fine-tuned on sst2", teacher=str(root))
    refused("holds no model fine-tuned on sst2", teacher="./nowhere")
    refused("fine-tuned on stsb; sst2 needs a teacher", teacher=str(models / "stsb"))
    refused("teaches one task", teacher=str(models / "sst2"), tasks=("sst2", "stsb"))
    refused("has classes .* needs one score", teacher=str(root / "student"), tasks=("stsb",))
    bare = shutil.copytree(root / "student", tmp_path.parent / f"{tmp_path.name}-bare")
    config = json.loads((bare / "config.json").read_text())
    (bare / "config.json").write_text(json.dumps({**config, "architectures": ["BertModel"]}))
    refused("not fine-tuned on sst2: it is a BertModel", teacher=str(bare))
    with pytest.raises(UserError, match="keeps its own models"):
        run(configure(root, root / "runs", teacher=str(teacher)))


def test_a_teacher_that_lacks_its_head_or_diverged_is_refused(
    root: Path, teacher: Path, tmp_path: Path
) -> None:
    model = AutoModelForSequenceClassification.from_pretrained(root / "student")
    folder = shutil.copytree(root / "student", tmp_path / "noisy")
    model.classifier.bias.data.fill_(float("nan"))
    model.save_pretrained(folder)
    with pytest.raises(UserError, match="values that are not finite"):
        logits_of(root, folder)
    state = {name: value for name, value in model.state_dict().items() if "classifier" not in name}
    model.save_pretrained(folder, state_dict=state)
    with pytest.raises(UserError, match=r"not fine-tuned: its files lack classifier\.bias"):
        logits_of(root, folder)


def test_squad_is_taught_window_by_window(tmp_path: Path) -> None:
    texts = write_voyages(tmp_path / "files", 2)
    student = save_answerer(tmp_path / "student", texts)
    wider = save_answerer(tmp_path / "teacher", texts, hidden=48)
    config = squad_config(tmp_path, "teacher", wider, keep_model=True)
    run(config)
    kept = tmp_path / "x" / "finetune-teacher" / "models" / "squad_v2"
    taught = squad_config(tmp_path, "", student, teacher=str(kept.parents[1]))
    (job,) = jobs_of(taught)
    encoded = job.encode()
    model = AutoModelForQuestionAnswering.from_pretrained(kept, trust_remote_code=True).eval()
    for row in encoded.train.rows[:40:8]:
        outputs = model(row["input_ids"][None].long())
        for name in ("start_logits", "end_logits"):
            torch.testing.assert_close(
                row[f"teacher_{name}"], outputs[name][0].detach(), rtol=1e-4, atol=1e-4
            )
    batch = encoded.padding(encoded.train.rows[:5])
    assert batch["teacher_end_logits"].shape == batch["input_ids"].shape
    run(taught)
    results = read_record(tmp_path / "x" / "finetune" / "results.json", "magicbert/finetune/1")
    assert results["finished"] is True
    assert results["distillation"]["squad_v2"]["teacher"]["folder"] == str(kept)

    stranger = save_answerer(tmp_path / "stranger", texts + " kraken")
    with pytest.raises(UserError, match="reads other tokens than the student"):
        run(squad_config(tmp_path, "b", stranger, teacher=str(kept)))
    with pytest.raises(UserError, match="fine-tuned on squad_v2; squad needs a teacher"):
        run(squad_config(tmp_path, "b", student, teacher=str(kept), tasks=("squad",)))


def squad_config(root: Path, label: str, model: Path, **changes: Any) -> FinetuneConfig:
    changes = {"tasks": ("squad_v2",), **changes}
    config = configure(root, root, label=label, model=str(model), **changes)
    squad = SquadSection(
        data=str(root / "files"), max_length=48, overlap=12, max_question_tokens=16,
        max_answer_tokens=6, num_best=5,
    )  # fmt: skip
    settings = dataclasses.replace(config.finetune, max_train_rows=40, batch_size=16)
    return dataclasses.replace(config, squad=squad, finetune=settings)
