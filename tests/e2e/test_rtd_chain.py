"""Replaced-token detection through the stages: two ranks, a search, an exported model."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForPreTraining, AutoModelForSequenceClassification

from magicbert import cli
from magicbert.bert.electra_supernet import ElectraSupernet
from magicbert.bert.saving import load_supernet
from magicbert.records import read_record
from magicbert.trail import read_metrics

pytestmark = pytest.mark.distributed
SETTINGS = {
    "model.hidden_size": "16", "model.max_length": "16", "objective.name": "rtd",
    "masking.rule": "electra", "optimizer.warmup_steps": "0", "training.num_steps": "4",
    "training.rows_per_step": "16", "training.rows_per_micro_batch": "4",
    "training.precision": "fp32", "training.log_every": "2", "training.evaluate_every": "4",
    "training.num_eval_batches": "2", "training.num_eval_paths": "2",
}  # fmt: skip
SUPERNET = {
    "space.preset": "custom", "space.num_layers": "2", "space.candidates": "[ffn, conv3]",
    "launch.num_ranks": "2", "training.zero_stage": "2", "alignment.enabled": "true",
    "alignment.num_blocks": "2", "alignment.every": "2", "alignment.num_dev_batches": "1",
}  # fmt: skip
SEARCH = {
    "search.num_rounds": "1", "search.samples_per_round": "4", "search.num_finalists": "4",
    "search.num_dev_batches": "1", "search.num_final_batches": "1", "search.rows_per_batch": "4",
}  # fmt: skip


def magicbert(verb: str, folder: Path, settings: dict[str, str]) -> None:
    options = {"run.root": str(folder / "runs"), "run.name": "rtd", **settings}
    cli.main([verb, *(word for name, value in options.items() for word in (f"--{name}", value))])


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with a searched supernet of discriminators."""
    folder = tmp_path_factory.mktemp("rtd")
    draw = random.Random(0)
    words = [f"word{number}" for number in range(16)]
    documents = (" ".join(draw.choices(words, k=40)) for _ in range(150))
    (folder / "corpus.txt").write_text("\n\n".join(documents))
    corpus = {
        "corpus.sources": f"[{folder / 'corpus.txt'}]", "corpus.valid_fraction": "0.1",
        "tokenizer.vocab_size": "100", "shards.length": "16", "shards.num_workers": "1",
    }  # fmt: skip
    magicbert("prepare", folder, corpus)
    magicbert("pretrain", folder, SETTINGS | SUPERNET)
    magicbert("search", folder, SEARCH)
    return folder / "runs" / "rtd"


def test_both_networks_are_logged(run: Path) -> None:
    rows = read_metrics(run / "pretrain")
    for kind in ("train", "valid"):
        last = [row for row in rows if row["kind"] == kind][-1]
        for name in ("discriminator_accuracy", "discriminator_recall", "generator_accuracy"):
            assert 0 <= last[name] <= 1, (kind, name)
        assert "discriminator_precision" in last
        assert last["generator_loss"] > 0
    result = read_record(run / "pretrain" / "result.json", "magicbert/training-result/1")
    assert (result["objective"], result["unigram_entropy"]) == ("rtd", None)
    assert result["valid_loss"] < 2
    supernet, _ = load_supernet(run / "pretrain" / "supernet")
    assert isinstance(supernet, ElectraSupernet)


def test_paths_are_scored_as_discriminators(run: Path) -> None:
    found = read_record(run / "search" / "architectures.json", "magicbert/architectures/1")
    assert found["origin"]["objective"]["name"] == "rtd"
    assert all(0 < entry["loss"] < 2 for entry in found["results"])


def test_the_report_draws_it(run: Path) -> None:
    magicbert("report", run.parent.parent, {})
    assert "told replaced or original" in (run / "report.html").read_text(encoding="utf-8")


@pytest.mark.slow
@pytest.mark.parametrize("start", ["scratch", "inherited"])
def test_the_retrained_discriminator_is_exported_alone(run: Path, start: str) -> None:
    folder, label = run.parent.parent, {"run.label": start}
    magicbert("retrain", folder, SETTINGS | label | {"start": start})
    magicbert("export", folder, label)
    export = run / f"export-{start}"
    weights = json.loads((export / "config.json").read_text())
    assert weights["architectures"] == ["MagicBertForPreTraining"]
    model = AutoModelForPreTraining.from_pretrained(export, trust_remote_code=True)
    assert not [name for name, _ in model.named_parameters() if "generator" in name]
    assert model(torch.arange(5, 15)[None]).logits.shape == (1, 10)
    tuned = AutoModelForSequenceClassification.from_pretrained(export, trust_remote_code=True)
    assert torch.equal(tuned.model.embeddings.tokens.weight, model.model.embeddings.tokens.weight)
    assert "AutoModelForPreTraining" in (export / "README.md").read_text()
