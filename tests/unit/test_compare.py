"""The comparison table: recorded scores, counted costs, measured times, and reasons for gaps."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from exported_run import WORDS, write_tokenizer
from tiny_bert import save_tiny_bert

from magicbert import cli
from magicbert.bert.modeling.configuration_magicbert import MagicBertConfig
from magicbert.bert.modeling.modeling_magicbert import MagicBertForMaskedLM, MagicBertModel
from magicbert.comparison.cost import encoder_cost
from magicbert.comparison.recorded import read_recorded
from magicbert.comparison.table import score_columns
from magicbert.config.reading import to_yaml
from magicbert.config.roots import FinetuneConfig
from magicbert.config.sections import ComparedModelSection, FinetuneSection
from magicbert.errors import UserError
from magicbert.finetune.grid import RESULTS_SCHEMA
from magicbert.finetune.pretrained import folder_identity
from magicbert.finetune.results import summarize
from magicbert.records import read_record, write_record

ARCHITECTURE = "mha2-conv3"


def save_own(folder: Path) -> Path:
    torch.manual_seed(0)
    config = MagicBertConfig(
        architecture=ARCHITECTURE, vocab_size=16, hidden_size=16, max_position_embeddings=20
    )
    MagicBertForMaskedLM(config).save_pretrained(folder)
    write_tokenizer(folder)
    return folder


def write_finetuning(folder: Path, model: Path, *, tasks: tuple[str, ...] = ("cola",)) -> Path:
    """Writes what a fine-tuning with two rates and three seeds leaves."""
    rows = [
        {"task": task, "learning_rate": rate, "seed": seed, "metric": "f1",
         "score": base + 0.01 * seed, "metrics": {"f1": base + 0.01 * seed, "exact": 0.1 * seed}}
        for task in tasks
        for rate, base in ((1e-5, 0.4), (2e-5, 0.6))
        for seed in range(3)
    ]  # fmt: skip
    payload = {
        "model": model.name, "model_identity": folder_identity(model), "architecture": None,
        "finished": True, "num_cells": 6, "num_finished_cells": 6, "rows": rows,
        "summary": summarize(rows),
    }  # fmt: skip
    write_record(folder / "results.json", RESULTS_SCHEMA, payload)
    config = FinetuneConfig(finetune=FinetuneSection(model=str(model)))
    (folder / "config.yaml").write_text(to_yaml(config))
    return folder


def compare(root: Path, models: list[dict[str, Any]], *words: str) -> dict[str, Any]:
    file = root / "compare.json.yaml"
    file.write_text(json.dumps({"compare": {"models": models, "length": 12, "rounds": 2}}))
    cli.main(["compare", "--config", str(file), "--run.root", str(root), "--run.name", "r", *words])
    return read_record(root / "r" / "compare" / "comparison.json", "magicbert/comparison/1")


def test_models_of_both_kinds_stand_side_by_side(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    own = save_own(tmp_path / "own")
    tuned = write_finetuning(tmp_path / "tuned", own, tasks=("cola", "squad"))
    bert = save_tiny_bert(tmp_path / "bert", WORDS)
    record = compare(tmp_path, [
        {"name": "ours", "kind": "searched", "finetune": [str(tuned)]},
        {"name": "bert", "kind": "hand-made", "model": str(bert)},
    ])  # fmt: skip
    ours, theirs = record["rows"]
    assert ours["architecture"] == ARCHITECTURE
    for row in (ours, theirs):
        assert set(row["latency"]) == {"torch", "onnx", "int8"}
        assert all(times["wall"]["median"] > 0 for times in row["latency"].values())
    scores = {(score["task"], score["metric"]): score for score in ours["scores"]}
    assert scores["cola", "f1"]["median"] == pytest.approx(0.61)
    assert scores["cola", "f1"]["learning_rate"] == 2e-5
    assert scores["squad", "exact"]["num_seeds"] == 3
    assert theirs["missing"]["scores"] == "no fine-tuning is named for it"
    text = (tmp_path / "r" / "compare" / "comparison.md").read_text()
    assert "61.0 (60.0 to 62.0, 3 seeds)" in text
    assert "squad, exact" in text
    assert "cola, exact" not in text
    assert "[1] no fine-tuning is named for it" in text
    page = (tmp_path / "r" / "compare" / "comparison.html").read_text()
    assert "61.0 (60.0 to 62.0, 3 seeds)" in page
    with (tmp_path / "r" / "compare" / "comparison.csv").open() as stream:
        lines = list(csv.DictReader(stream))
    (line,) = (row for row in lines if (row["model"], row["quantity"]) == ("ours", "parameters"))
    model = MagicBertForMaskedLM.from_pretrained(own).model
    assert int(line["value"]) == sum(weight.numel() for weight in model.parameters())
    assert str(tmp_path) not in text + page
    cli.main(["report", "--run.root", str(tmp_path), "--run.name", "r"])
    assert "61.0 (60.0 to 62.0, 3 seeds)" in (tmp_path / "r" / "report.html").read_text()


def test_a_model_that_is_gone_leaves_its_scores_and_a_reason(tmp_path: Path) -> None:
    own = save_own(tmp_path / "own")
    tuned = write_finetuning(tmp_path / "tuned", own)
    torch.manual_seed(1)
    MagicBertForMaskedLM(MagicBertConfig.from_pretrained(own)).save_pretrained(own)
    models = [{"name": "ours", "finetune": [str(tuned)]}]
    (row,) = compare(tmp_path, models, "--compare.onnx", "false")["rows"]
    assert row["parameters"] is None
    assert "changed since" in row["missing"]["parameters"]
    assert row["latency"]["torch"] is None
    assert row["scores"][0]["num_seeds"] == 3


@pytest.mark.parametrize("hidden", [16, 32])
def test_both_ways_of_counting_agree_on_the_same_encoder(hidden: int) -> None:
    """BERT counted in a forward, and the same sizes counted by operators."""
    bert = transformers.BertConfig(
        vocab_size=50, hidden_size=hidden, num_hidden_layers=3, num_attention_heads=2,
        intermediate_size=4 * hidden, max_position_embeddings=20, type_vocab_size=1,
    )  # fmt: skip
    ours = MagicBertConfig(
        architecture="-".join(["mha2-ffn"] * 3), vocab_size=50, hidden_size=hidden,
        max_position_embeddings=20,
    )  # fmt: skip
    theirs, own = encoder_cost(bert, 12), encoder_cost(ours, 12)
    assert theirs.flops == own.flops
    assert theirs.parameters == own.parameters + hidden  # BERT's one segment embedding
    model = MagicBertModel(ours)
    assert own.parameters == sum(weight.numel() for weight in model.parameters())


def test_records_that_do_not_belong_together_are_refused(tmp_path: Path) -> None:
    own, other = save_own(tmp_path / "own"), save_tiny_bert(tmp_path / "bert", WORDS)
    one = str(write_finetuning(tmp_path / "one", own))
    two = str(write_finetuning(tmp_path / "two", other, tasks=("rte",)))
    again = str(write_finetuning(tmp_path / "again", own))
    with pytest.raises(UserError, match="of different models"):
        read_recorded(ComparedModelSection(name="x", finetune=(one, two)))
    with pytest.raises(UserError, match="cola: in two of its fine-tunings"):
        read_recorded(ComparedModelSection(name="x", finetune=(one, again)))
    with pytest.raises(UserError, match="no such file"):
        read_recorded(ComparedModelSection(name="x", finetune=(str(tmp_path / "none"),)))


def test_only_main_metrics_and_squads_become_columns() -> None:
    def score(task: str, metric: str, is_main: bool) -> dict[str, Any]:
        return {"task": task, "metric": metric, "is_main": is_main}

    mrpc = [score("mrpc", "accuracy", True), score("mrpc", "f1", False)]
    squad = [score("squad_v2", "f1", True), score("squad_v2", "exact", False)]
    columns = score_columns([{"scores": mrpc}, {"scores": squad}])
    assert columns == [("mrpc", "accuracy"), ("squad_v2", "f1"), ("squad_v2", "exact")]


def test_no_models_and_bad_rows_are_one_message(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for models, words in (([], "name at least one"), ([{"name": " "}], "must not be empty")):
        with pytest.raises(SystemExit) as left:
            compare(tmp_path, models)
        assert left.value.code == 2
        assert words in capsys.readouterr().err
    assert not (tmp_path / "r").exists()
