"""``magicbert import``: from a folder, or the hub's cache, to a folder like an export's."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from bert_examples import randomise
from reference_encoders import save_reference
from tiny_bert import save_tiny_bert
from transformers import AutoModelForPreTraining, AutoTokenizer, BertModel

from magicbert import cli
from magicbert.bert.exported import verify_export
from magicbert.bert.importing import import_encoder

WORDS = ("the", "ship", "sailed", "north")


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return save_tiny_bert(tmp_path / "checkpoint", WORDS)


def run_import(tmp_path: Path, *words: str) -> None:
    cli.main(["import", "--run.root", str(tmp_path / "runs"), *words])


def test_a_folder_is_imported_and_loads_like_an_export(tmp_path: Path, checkpoint: Path) -> None:
    run_import(tmp_path, "--from", str(checkpoint), "--name", "a")
    folder = tmp_path / "runs" / "a" / "import"
    verify_export(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokens = tokenizer("the ship sailed", return_tensors="pt")
    ours = import_encoder(str(folder)).encoder(**tokens)[0]
    theirs = BertModel.from_pretrained(checkpoint)(**tokens)[0]
    assert torch.allclose(ours, theirs, atol=1e-5)
    card = (folder / "README.md").read_text()
    assert "base_model" in card
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["provenance"]["family"] == "bert"
    assert "bert.pooler.dense.weight" in manifest["provenance"]["dropped"]


def test_a_discriminator_loads_for_pretraining(tmp_path: Path, checkpoint: Path) -> None:
    vocab_size = json.loads((checkpoint / "config.json").read_text())["vocab_size"]
    theirs = save_reference(checkpoint, "ElectraForPreTraining", vocab_size=vocab_size)
    run_import(tmp_path, "--from", str(checkpoint))
    folder = tmp_path / "runs" / "run" / "import"
    ours = AutoModelForPreTraining.from_pretrained(folder, trust_remote_code=True)
    ids = torch.arange(5, 15)[None]
    assert type(ours).__name__ == "MagicBertForPreTraining"
    assert torch.allclose(ours(ids).logits, theirs(ids).logits, atol=1e-5)


def test_a_model_of_the_hub_is_taken_from_its_cache(
    tmp_path: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "hub" / "models--someone--model"
    (place / "refs").mkdir(parents=True)
    (place / "refs" / "main").write_text("0" * 40)
    (place / "snapshots").mkdir()
    checkpoint.rename(place / "snapshots" / ("0" * 40))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("transformers.utils.hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    assert import_encoder("someone/model").family == "bert"
    with pytest.raises(SystemExit):
        run_import(tmp_path, "--from", "someone/other")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "source: give a folder"),
        (["--from", "nowhere/at/all"], "nowhere/at/all: no such folder here"),
    ],
)
def test_mistakes_exit_with_2_and_leave_nothing(
    words: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as left:
        run_import(tmp_path, *words)
    assert left.value.code == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "runs" / "run" / "import").exists()


def test_a_tokenizer_of_another_model_is_refused(
    tmp_path: Path, checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    randomise(save_reference(checkpoint, "BertModel"))
    with pytest.raises(SystemExit):
        run_import(tmp_path, "--from", str(checkpoint))
    assert "do not belong together" in capsys.readouterr().err
