"""Models to start from: our own export, other models, and what cannot be loaded."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from exported_run import ARCHITECTURE, write_run
from safetensors.torch import load_file, save_file
from tiny_bert import save_tiny_bert
from transformers import set_seed

from magicbert.bert.modeling.modeling_magicbert import MagicBertForSequenceClassification
from magicbert.config.roots import ExportConfig, FinetuneConfig
from magicbert.config.sections import FinetuneSection, RunSection
from magicbert.errors import UserError
from magicbert.finetune.encoding import Padding
from magicbert.finetune.pretrained import (
    describe_pretrained,
    find_pretrained,
    load_classifier,
    load_tokenizer,
)
from magicbert.finetune.tasks import TASKS
from magicbert.records import read_record
from magicbert.stages import export, finetune


@pytest.fixture
def exported(tmp_path: Path) -> RunSection:
    write_run(tmp_path)
    run = RunSection(root=str(tmp_path), name="demo")
    export.run(ExportConfig(run=run))
    return run


def poison_code(folder: Path) -> None:
    for path in folder.glob("*.py"):
        path.write_text("raise RuntimeError('remote code was run')\n")


def test_own_export_is_found_and_its_code_is_not_run(exported: RunSection) -> None:
    folder = Path(exported.root) / "demo" / "export"
    poison_code(folder)
    start = find_pretrained(FinetuneConfig(run=exported))
    assert (start.name, start.architecture) == ("export", str(ARCHITECTURE))
    model = load_classifier(start, TASKS["mnli"])
    assert type(model) is MagicBertForSequenceClassification
    assert model.config.id2label == {0: "entailment", 1: "neutral", 2: "contradiction"}
    weights = load_file(folder / "model.safetensors")
    loaded = model.state_dict()
    shared = [name for name in weights if name in loaded]
    assert len(shared) > 20
    assert all(torch.equal(loaded[name], weights[name]) for name in shared)
    assert model.dtype == torch.float32


def test_own_export_is_fine_tuned_from_end_to_end(exported: RunSection, tmp_path: Path) -> None:
    folder = tmp_path / "glue" / "STS-B"
    folder.mkdir(parents=True)
    rows = [f"{row}\tthe old ship left\tat dawn {'.' * (row % 5)}\t{row % 5}" for row in range(20)]
    for stem in ("train", "dev"):
        content = "\n".join(["index\tsentence1\tsentence2\tscore", *rows])
        (folder / f"{stem}.tsv").write_text(content)
    settings = FinetuneSection(
        tasks=("stsb",), data=str(tmp_path / "glue"), learning_rates=(1e-3,), seeds=(0,),
        num_epochs=1,
    )  # fmt: skip
    finetune.run(FinetuneConfig(run=exported, finetune=settings))
    stage = Path(exported.root) / "demo" / "finetune"
    results = read_record(stage / "results.json", "magicbert/finetune/1")
    assert results["architecture"] == str(ARCHITECTURE)
    assert results["model"] == "export"
    assert results["max_length"] == 20
    lines = (stage / "predictions" / "STS-B.tsv").read_text().splitlines()
    assert len(lines) == 21
    assert all(0.0 <= float(line.split("\t")[1]) <= 5.0 for line in lines[1:])


def test_identity_follows_weights_and_not_the_model_card(tmp_path: Path) -> None:
    folder = save_tiny_bert(tmp_path / "model", ["word"])
    first = describe_pretrained("m", str(folder), False).identity
    (folder / "README.md").write_text("another card")
    (folder / "manifest.json").write_text("{}")
    assert describe_pretrained("m", str(folder), False).identity == first
    data = bytearray((folder / "model.safetensors").read_bytes())
    data[-1] ^= 1
    (folder / "model.safetensors").write_bytes(data)
    assert describe_pretrained("m", str(folder), False).identity != first


def test_new_head_depends_on_the_seed_alone(tmp_path: Path) -> None:
    folder = save_tiny_bert(tmp_path / "model", ["word"])
    start = describe_pretrained("m", str(folder), False)
    heads = []
    for seed in (1, 1, 2):
        set_seed(seed)
        heads.append(load_classifier(start, TASKS["mnli"]).classifier.weight)
    assert torch.equal(heads[0], heads[1])
    assert not torch.equal(heads[0], heads[2])


def test_model_with_code_of_its_own_needs_permission(tmp_path: Path) -> None:
    folder = save_tiny_bert(tmp_path / "model", ["word"])
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "foreign", "auto_map": {"AutoConfig": "code.ForeignConfig"}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "code.py").write_text("raise RuntimeError('remote code was run')\n")
    with pytest.raises(UserError, match="brings its own code; read it"):
        describe_pretrained("foreign", str(folder), False)


@pytest.mark.parametrize("damage", ["missing", "no config", "bad config", "no weights", "cut"])
def test_what_cannot_be_loaded_is_refused(tmp_path: Path, damage: str) -> None:
    folder = save_tiny_bert(tmp_path / "model", ["word"])
    weights = folder / "model.safetensors"
    if damage == "missing":
        shutil.rmtree(folder)
    elif damage == "no config":
        (folder / "config.json").unlink()
    elif damage == "bad config":
        (folder / "config.json").write_text("{")
    elif damage == "no weights":
        weights.rename(folder / "pytorch_model.bin")
    else:
        weights.write_bytes(weights.read_bytes()[:200])
    with pytest.raises(UserError, match="cannot be loaded"):
        load_classifier(describe_pretrained("mine", str(folder), False), TASKS["rte"])


def test_an_encoder_that_lacks_weights_is_refused(tmp_path: Path) -> None:
    """transformers draws them anew and goes on."""
    folder = save_tiny_bert(tmp_path / "model", ["word"])
    weights = load_file(folder / "model.safetensors")
    del weights["bert.encoder.layer.0.output.dense.weight"]
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(UserError, match=r"its files lack bert\.encoder\.layer\.0\.output"):
        load_classifier(describe_pretrained("mine", str(folder), False), TASKS["rte"])


def test_code_is_allowed_by_the_user_alone(tmp_path: Path) -> None:
    folder = save_tiny_bert(tmp_path / "model", ["word"])
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"_private": "evil/kernel"}))
    with pytest.raises(UserError, match="private field '_private'"):
        describe_pretrained("mine", str(folder), False)
    assert describe_pretrained("mine", str(folder), True).trust_remote_code


def test_a_changed_export_is_refused(exported: RunSection) -> None:
    folder = Path(exported.root) / "demo" / "export"
    data = bytearray((folder / "model.safetensors").read_bytes())
    data[-1] ^= 1
    (folder / "model.safetensors").write_bytes(data)
    with pytest.raises(UserError, match=r"model\.safetensors: damaged or changed"):
        find_pretrained(FinetuneConfig(run=exported))


def test_tokenizer_is_needed_with_a_padding_token(tmp_path: Path) -> None:
    folder = save_tiny_bert(tmp_path / "model", ["word"])
    start = describe_pretrained("mine", str(folder), False)
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    settings.pop("pad_token")
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    with pytest.raises(UserError, match="no padding token"):
        load_tokenizer(start)


def test_padding_is_to_the_longest_of_the_batch() -> None:
    rows = [
        {"input_ids": [5, 6, 7], "token_type_ids": [0, 1, 1], "labels": 1},
        {"input_ids": [8], "token_type_ids": [0], "labels": 0},
    ]
    batch = Padding(pad_token_id=9, is_regression=False)(rows)
    assert batch["input_ids"].tolist() == [[5, 6, 7], [8, 9, 9]]
    assert batch["token_type_ids"].tolist() == [[0, 1, 1], [0, 0, 0]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]
    assert batch["labels"].tolist() == [1, 0]
    assert Padding(9, is_regression=True)(rows)["labels"].dtype == torch.float32
