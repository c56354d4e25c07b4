"""The stage as a whole on tiny models: it learns, it resumes, its files are in order."""

from __future__ import annotations

import dataclasses
import json
import random
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tiny_bert import save_tiny_bert

from magicbert.config.roots import FinetuneConfig
from magicbert.config.sections import FinetuneSection, RunSection
from magicbert.errors import UserError
from magicbert.finetune.pretrained import describe_pretrained, folder_identity, load_classifier
from magicbert.finetune.results import best_row, summarize
from magicbert.finetune.tasks import TASKS
from magicbert.records import read_record
from magicbert.stages.finetune import run

GOOD = ("good", "fine", "great")
BAD = ("bad", "poor", "awful")
NOISE = ("the", "film", "was", "rather", "very", "quite", "story", "and")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_bert(tmp_path_factory.mktemp("models") / "tiny", [*GOOD, *BAD, *NOISE])


@pytest.fixture(scope="module")
def glue(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns tasks whose labels follow from one word, with as few rows as can be learnt from."""
    root = tmp_path_factory.mktemp("glue")
    write(root / "SST-2" / "train.tsv", "sentence\tlabel", sentiment_rows(256, seed=0))
    write(root / "SST-2" / "dev.tsv", "sentence\tlabel", sentiment_rows(64, seed=1))
    tests = [f"{index}\t{row}" for index, row in enumerate(sentiment_rows(80, seed=2))]
    write(root / "SST-2" / "test.tsv", "index\tsentence\tlabel", tests)
    header = "index\tsentence1\tsentence2\t{}"
    pairs = pair_rows(("entailment", "neutral", "contradiction"), 24)
    for stem in ("train", "dev_matched", "dev_mismatched"):
        write(root / "MNLI" / f"{stem}.tsv", header.format("gold_label"), pairs)
    for stem in ("train", "dev"):
        pairs = pair_rows(("entailment", "not_entailment"), 24)
        write(root / "RTE" / f"{stem}.tsv", header.format("label"), pairs)
        write(root / "STS-B" / f"{stem}.tsv", header.format("score"), pair_rows(("0.0", "4.5"), 24))
    return root


def sentiment_rows(count: int, seed: int) -> list[str]:
    generator = random.Random(seed)
    rows = []
    for number in range(count):
        words = generator.choices(NOISE, k=generator.randint(1, 6))
        words.insert(generator.randint(0, len(words)), generator.choice((BAD, GOOD)[number % 2]))
        rows.append(f"{' '.join(words)}\t{number % 2}")
    return rows


def pair_rows(labels: tuple[str, ...], count: int) -> list[str]:
    words = (*GOOD, *BAD)
    return [
        f"{row}\tthe {words[row % len(labels)]} film\tthe story\t{labels[row % len(labels)]}"
        for row in range(count)
    ]


def write(path: Path, header: str, rows: list[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([header, *rows]) + "\n")


def configure(root: Path, model: Path | str, glue: Path, **changes: Any) -> FinetuneConfig:
    settings = FinetuneSection(
        model=str(model), data=str(glue), tasks=("sst2",), learning_rates=(0.01,), seeds=(0,),
        num_epochs=1, batch_size=32, max_length=16,
    )  # fmt: skip
    settings = dataclasses.replace(settings, **changes)
    return FinetuneConfig(run=RunSection(root=str(root), name="x"), finetune=settings)


def results_of(root: Path) -> dict[str, Any]:
    return read_record(root / "x" / "finetune" / "results.json", "magicbert/finetune/1")


def log_of(root: Path) -> str:
    return (root / "x" / "finetune" / "log.txt").read_text()


def without_seconds(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: row[name] for name in row if name != "seconds"} for row in rows]


def test_learns_an_easy_task_and_writes_every_file(
    tmp_path: Path, model: Path, glue: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(configure(tmp_path, model, glue, num_epochs=3, batch_size=8, max_train_rows=200))
    results = results_of(tmp_path)
    (row,) = results["rows"]
    assert row["score"] == row["metrics"]["accuracy"] > 0.9
    assert (row["train_rows"], row["metric"]) == (200, "accuracy")
    assert results["finished"] is True
    assert results["data"]["sst2"]["train"]["rows_in_file"] == 256
    assert results["summary"][0]["median"] == row["score"]
    assert results["predictions"][0]["split"] == "test"
    folder = tmp_path / "x" / "finetune"
    header, *predictions = (folder / "predictions" / "SST-2.tsv").read_text().splitlines()
    assert header == "index\tprediction"
    # Row N of the test file has label N % 2: predictions must be good and in the file's order.
    assert sum(line == f"{row}\t{row % 2}" for row, line in enumerate(predictions)) > 72
    assert len(predictions) == 80
    (line,) = (folder / "metrics.jsonl").read_text().splitlines()
    assert json.loads(line)["score"] == row["score"]
    assert "sst2" in capsys.readouterr().out
    left = {path.name for path in folder.iterdir()}
    assert left == {
        "cells", "config.yaml", "environment.json", "log.txt", "metrics.jsonl", "predictions",
        "results.json",
    }  # fmt: skip


def test_stopped_grid_ends_like_one_that_ran_through(
    tmp_path: Path, model: Path, glue: Path, caplog: pytest.LogCaptureFixture
) -> None:
    grid = {"learning_rates": (0.003, 0.01), "seeds": (0, 1), "max_train_rows": 64}
    run(configure(tmp_path / "through", model, glue, **grid))
    whole = results_of(tmp_path / "through")

    stopping = configure(tmp_path / "stopped", model, glue, max_minutes=1e-6, **grid)
    with caplog.at_level("INFO", logger="magicbert"):
        for finished in (1, 2):
            run(stopping)
            partial = results_of(tmp_path / "stopped")
            assert partial["finished"] is False
            assert partial["num_finished_cells"] == finished
            assert without_seconds(partial["rows"]) == without_seconds(whole["rows"][:finished])
    assert "2 of 4 cells done; run the same command again" in log_of(tmp_path / "stopped")
    assert not (tmp_path / "stopped" / "x" / "finetune" / "predictions").exists()

    cells = tmp_path / "stopped" / "x" / "finetune" / "cells"
    first, second = sorted(cells.glob("*/cell.json"))
    second.unlink()  # as if killed between the predictions and the record of the second cell
    written = first.stat().st_mtime_ns
    run(configure(tmp_path / "stopped", model, glue, **grid))
    resumed = results_of(tmp_path / "stopped")
    assert first.stat().st_mtime_ns == written
    assert without_seconds(resumed["rows"]) == without_seconds(whole["rows"])
    assert resumed["summary"] == whole["summary"]
    predictions = Path("x", "finetune", "predictions", "SST-2.tsv")
    expected = (tmp_path / "through" / predictions).read_bytes()
    assert (tmp_path / "stopped" / predictions).read_bytes() == expected


def test_other_settings_or_another_model_are_other_cells(
    tmp_path: Path, model: Path, glue: Path
) -> None:
    few = {"max_train_rows": 32}
    run(configure(tmp_path, model, glue, **few))
    cells = tmp_path / "x" / "finetune" / "cells"
    assert len(list(cells.iterdir())) == 1
    run(configure(tmp_path, model, glue, weight_decay=0.0, **few))
    assert len(list(cells.iterdir())) == 2
    other = tmp_path / "other"
    shutil.copytree(model, other)
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps({**config, "hidden_dropout_prob": 0.0}))
    run(configure(tmp_path, other, glue, **few))
    assert len(list(cells.iterdir())) == 3
    assert results_of(tmp_path)["num_cells"] == 1


def test_a_damaged_cell_is_refused(tmp_path: Path, model: Path, glue: Path) -> None:
    config = configure(tmp_path, model, glue, max_train_rows=32)
    run(config)
    (record,) = (tmp_path / "x" / "finetune" / "cells").glob("*/cell.json")
    record.write_text(record.read_text().replace('"seed": 0', '"seed": 7'))
    with pytest.raises(UserError, match=r"cell\.json: damaged"):
        run(config)


def test_mnli_weights_start_rte_and_stsb(tmp_path: Path, model: Path, glue: Path) -> None:
    tasks = ("rte", "stsb", "mnli")
    run(configure(tmp_path, model, glue, tasks=tasks, seeds=(0, 1)))
    results = results_of(tmp_path)
    tasks_done = [row["task"] for row in results["rows"]]
    assert tasks_done == ["mnli", "mnli", "rte", "rte", "stsb", "stsb"]
    assert set(results["rows"][0]["metrics"]) == {"accuracy", "accuracy_mismatched"}
    assert set(results["rows"][-1]["metrics"]) == {"spearman", "pearson"}
    folder = tmp_path / "x" / "finetune"
    names = {path.name for path in (folder / "predictions").iterdir()}
    assert names == {"MNLI-m.tsv", "MNLI-mm.tsv", "RTE.tsv", "STS-B.tsv"}

    kept = read_record(folder / "mnli-weights" / "kept.json", "magicbert/finetune-weights/1")
    assert kept["score"] == max(row["score"] for row in results["rows"][:2])
    settings = [
        read_record(path, "magicbert/finetune-cell/1")["settings"]
        for path in (folder / "cells").glob("rte-*/cell.json")
    ]
    assert [one["start_weights"] for one in settings] == [
        folder_identity(folder / "mnli-weights")
    ] * 2
    best = max(results["rows"][:2], key=lambda row: row["score"])
    origin = {name: best[name] for name in ("learning_rate", "seed", "score")}
    assert [row.get("warm_start") for row in results["rows"]] == [None] * 2 + [origin] * 4

    # RTE alone, later: the same weights, so the same cells. Without warm start: others.
    run(configure(tmp_path, model, glue, tasks=("rte",), seeds=(0, 1)))
    assert without_seconds(results_of(tmp_path)["rows"]) == without_seconds(results["rows"][2:4])
    run(configure(tmp_path, model, glue, tasks=("rte",), seeds=(0, 1), mnli_warm_start=False))
    assert len(list((folder / "cells").glob("rte-*"))) == 4

    start = describe_pretrained(str(model), str(model), False)
    warm = load_classifier(start, TASKS["rte"], str(folder / "mnli-weights"))
    weights = load_file(folder / "mnli-weights" / "model.safetensors")
    name = "bert.encoder.layer.0.intermediate.dense.weight"
    assert torch.equal(warm.state_dict()[name], weights[name])
    assert warm.classifier.weight.shape == (2, 16)
    assert weights["classifier.weight"].shape == (3, 16)


def test_a_model_that_diverges_counts_as_zero(
    tmp_path: Path, model: Path, glue: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("WARNING", logger="magicbert"):
        run(configure(tmp_path, model, glue, tasks=("stsb",), learning_rates=(1e30,), num_epochs=3))
    (row,) = results_of(tmp_path)["rows"]
    assert row["diverged"] is True
    assert row["metrics"] == {"spearman": 0.0, "pearson": 0.0}
    assert "diverged" in log_of(tmp_path)


def test_nothing_is_written_when_input_is_wrong(tmp_path: Path, model: Path, glue: Path) -> None:
    with pytest.raises(UserError, match="no train file"):
        run(configure(tmp_path, model, glue, tasks=("sst2", "qqp")))
    with pytest.raises(UserError, match="no exported model"):
        run(configure(tmp_path, "", glue))
    with pytest.raises(UserError, match="cannot hold a pair; 5 are needed"):
        run(configure(tmp_path, model, glue, max_length=4))
    assert not list(tmp_path.iterdir())


def test_summary_takes_the_best_median_and_the_smallest_rate_among_equals() -> None:
    scores = {1e-5: (0.5, 0.9, 0.6), 3e-5: (0.7, 0.71, 0.1), 2e-5: (0.7, 0.1, 0.8)}
    rows = [
        {"task": "rte", "metric": "accuracy", "learning_rate": rate, "seed": seed, "score": score}
        for rate, all_seeds in scores.items()
        for seed, score in enumerate(all_seeds)
    ]
    (summary,) = summarize(rows)
    assert summary == {
        "task": "rte", "metric": "accuracy", "learning_rate": 2e-5, "median": 0.7,
        "minimum": 0.1, "maximum": 0.8, "num_seeds": 3,
    }  # fmt: skip
    assert best_row(rows, summary)["seed"] == 2
