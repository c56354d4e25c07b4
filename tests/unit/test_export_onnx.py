"""ONNX folders: torch's logits for any rows and positions, int8 beside, all or nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from exported_run import SPECIAL, WORDS, write_run, write_tokenizer
from tiny_corpus import config_for, make_documents, write_corpus
from torch import Tensor

from magicbert import cli
from magicbert.bert.modeling.configuration_magicbert import MagicBertConfig
from magicbert.bert.modeling.modeling_discriminator import MagicBertForPreTraining
from magicbert.bert.modeling.modeling_magicbert import (
    MagicBertForMaskedLM,
    MagicBertForQuestionAnswering,
    MagicBertForSequenceClassification,
)
from magicbert.bert.modeling.segments import Segments
from magicbert.bert.saving import save_supernet
from magicbert.bert.supernet import build_supernet
from magicbert.comparison.dev_scores import TaskRows
from magicbert.comparison.loading import load_runnable
from magicbert.config.roots import ExportConfig
from magicbert.config.sections import ModelSection, OnnxSection
from magicbert.data.manifest import read_manifest
from magicbert.errors import UserError
from magicbert.export import onnx_packages
from magicbert.export.heads import head_of
from magicbert.records import read_record
from magicbert.space import Architecture, SearchSpace
from magicbert.stages import prepare
from magicbert.stages.export_dev_rows import find_dev_rows

onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

ARCHITECTURE = "mha2-conv3-ffn-conv5x24"
VOCABULARY = len(SPECIAL + WORDS)
FEW = ("--onnx.rounds", "2", "--onnx.length", "8")


def save_model(folder: Path, kind: type[Any], **changes: object) -> Any:
    """Saves a model with random weights and its tokenizer; returns it in evaluation mode."""
    torch.manual_seed(0)
    sizes = {
        "architecture": "mha2-conv3", "vocab_size": VOCABULARY, "hidden_size": 16,
        "max_position_embeddings": 20, "initializer_range": 0.5,
    }  # fmt: skip
    model = kind(MagicBertConfig(**{**sizes, **changes}))
    model.save_pretrained(folder)
    write_tokenizer(folder)
    return model.eval()


def run_graph(file: Path, **inputs: Tensor) -> list[Tensor]:
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    feed = {name: value.numpy() for name, value in inputs.items()}
    return [torch.from_numpy(value) for value in session.run(None, feed)]


HEADS = {
    "classifier": (MagicBertForSequenceClassification, {"num_labels": 3}),
    "answers": (  # of several widths, as compression finds them
        MagicBertForQuestionAnswering,
        {"architecture": "mha2w8-conv3w8-ffn16w12", "hidden_size": 12, "embedding_size": 4},
    ),
    "discriminator": (MagicBertForPreTraining, {}),
}


SLOW = ("discriminator",)
PARAMETERS = [
    pytest.param(name, marks=[pytest.mark.slow] if name in SLOW else []) for name in ("own", *HEADS)
]


@pytest.fixture(scope="module", params=PARAMETERS)
def converted(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A model with one kind of head and the folder that was made of it."""
    root = tmp_path_factory.mktemp("onnx")
    words = ["export", "--onnx", "--run.root", str(root), "--run.name", "tiny", *FEW]
    if request.param == "own":
        write_own_run(root)
        cli.main([*words, "--onnx.num_dev_batches", "1"])
        model = MagicBertForMaskedLM.from_pretrained(root / "tiny" / "export").eval()
    else:
        kind, changes = HEADS[request.param]
        model = save_model(root / "model", kind, **changes)
        cli.main([*words, "--onnx.model", str(root / "model")])
    return model, root / "tiny" / "onnx"


def write_own_run(root: Path) -> None:
    """Prepares a tiny corpus and writes a model of random weights as if it were retrained."""
    prepare.run(config_for(root, write_corpus(root / "corpus.txt", make_documents(60))))
    manifest = read_manifest(root / "tiny" / "prepare")
    sizes = ModelSection(hidden_size=16, max_length=32, initializer_range=0.5)
    space = SearchSpace.of(Architecture.parse(ARCHITECTURE))
    model = build_supernet(space, sizes, manifest.vocab_size, manifest.pad_id, seed=0)
    save_supernet(root / "tiny" / "retrain" / "model", model, {})


def test_logits_are_torchs_for_any_rows_and_lengths(converted: Any) -> None:
    model, folder = converted
    generator = torch.Generator().manual_seed(1)
    for rows, length in ((1, 1), (1, 2), (4, 20), (3, 7)):
        tokens = torch.randint(model.config.vocab_size, (rows, length), generator=generator)
        mask = torch.ones_like(tokens)
        mask[0, length // 2 + 1 :] = 0
        given = run_graph(folder / "model.onnx", input_ids=tokens, attention_mask=mask)
        with torch.inference_mode():
            expected = model(tokens, mask, return_dict=False)
        assert len(given) == len(expected)
        for one, other in zip(given, expected, strict=True):
            seen = mask > 0 if one.shape[:2] == mask.shape else slice(None)
            torch.testing.assert_close(one[seen], other[seen], rtol=0, atol=1e-4)


def test_int8_multiplies_whole_numbers_and_is_near(converted: Any) -> None:
    model, folder = converted
    tokens = torch.arange(5, 15)[None]
    given = run_graph(
        folder / "model_int8.onnx", input_ids=tokens, attention_mask=torch.ones_like(tokens)
    )
    with torch.inference_mode():
        expected = model(tokens, return_dict=False)
    for one, other in zip(given, expected, strict=True):
        assert not torch.equal(one, other)
        together = torch.corrcoef(torch.stack([one.flatten(), other.flatten()]))
        assert together[0, 1] > 0.9
    assert b"MatMulInteger" in (folder / "model_int8.onnx").read_bytes()


def test_graphs_name_no_file_of_this_machine(converted: Any) -> None:
    _, folder = converted
    for name in ("model.onnx", "model_int8.onnx"):
        assert b".py" not in (folder / name).read_bytes()


def test_the_record_says_what_was_found(converted: Any) -> None:
    _, folder = converted
    record = read_record(folder / "onnx.json", "magicbert/onnx/1")
    assert record["parity"]["largest_difference"] <= 1e-4
    assert set(record["forms"]) == {"torch", "onnx", "int8"}
    int8, fp32 = record["forms"]["int8"], record["forms"]["onnx"]
    assert int8["largest_difference"] > fp32["largest_difference"]
    if record["class"] == "MagicBertForMaskedLM":
        assert record["score"]["metric"] == "masked-token accuracy"
        assert fp32["score"] == record["forms"]["torch"]["score"]
    else:
        assert record["score"]["metric"] == ""
        assert "onnx.task" in record["score"]["reason"]
    for form in record["forms"].values():
        assert form["milliseconds"]["wall"]["median"] > 0
    assert {"model.onnx", "model_int8.onnx", "config.json", "tokenizer.json", "README.md"} == set(
        record["files"]
    ) - {"tokenizer_config.json"}
    assert f"{fp32['bytes'] / 1e6:,.1f}" in (folder / "README.md").read_text()


def test_a_classifier_is_scored_on_all_dev_rows_of_its_task(tmp_path: Path) -> None:
    model = save_model(tmp_path / "model", MagicBertForSequenceClassification, num_labels=2)
    loaded = load_runnable(str(tmp_path / "model"))
    options = OnnxSection(enabled=True, model=str(tmp_path / "model"), task="embedded")
    rows = find_dev_rows(ExportConfig(onnx=options), loaded)
    assert isinstance(rows, TaskRows)
    assert (rows.metric, rows.beside) == ("accuracy", ("f1",))
    batches = list(rows.batches())
    assert sum(len(batch["input_ids"]) for batch in batches) == rows.num_rows > 0
    with torch.inference_mode():
        given = [model(**batch, return_dict=False) for batch in batches]
    scores, turned = rows.scores(given), rows.scores([(-logits,) for (logits,) in given])
    # Whoever always says the opposite is right where the other is wrong.
    assert scores["accuracy"] + turned["accuracy"] == pytest.approx(1.0)
    assert 0 < scores["f1"] < 1 or 0 < turned["f1"] < 1


def test_positions_of_a_mask_are_those_of_the_ids() -> None:
    for row in ("1111", "1100", "0011", "0110", "1011", "0000", "1"):
        mask = torch.tensor([[int(bit) for bit in row], [1] * len(row)])
        seen, described = Segments.of_ids(mask), Segments.of_mask(mask)
        assert torch.equal(described.position_ids, seen.position_ids.expand_as(mask)), row
        if seen.attention_mask is not None:
            assert torch.equal(described.attention_mask, seen.attention_mask), row


def test_without_the_packages_there_is_one_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = write_run(tmp_path)
    monkeypatch.setattr(onnx_packages, "PACKAGES", ("onnx", "no_such_package_of_onnx"))
    with pytest.raises(SystemExit) as left:
        cli.main(["export", "--onnx", "--run.root", str(tmp_path), "--run.name", run.name])
    assert left.value.code == 2
    message = capsys.readouterr().err
    assert "no_such_package_of_onnx" in message
    assert "magicbert[onnx]" in message
    assert not (run / "export").exists()
    assert not (run / "onnx").exists()


def test_a_model_without_a_known_head_is_refused() -> None:
    with pytest.raises(UserError, match="ForMultipleChoice"):
        head_of("mine", ["BertForMultipleChoice"])


def test_weights_that_are_missing_are_named(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    save_model(folder, MagicBertForMaskedLM)
    config = (folder / "config.json").read_text()
    changed = config.replace("MagicBertForMaskedLM", "MagicBertForSequenceClassification")
    (folder / "config.json").write_text(changed)
    with pytest.raises(SystemExit):
        cli.main(["export", "--onnx", "--onnx.model", str(folder), "--run.root", str(tmp_path)])
    assert not (tmp_path / "run" / "onnx").exists()


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    save_model(tmp_path / "model", MagicBertForQuestionAnswering)
    notes = tmp_path / "run" / "onnx" / "notes.txt"
    notes.parent.mkdir(parents=True)
    notes.write_text("mine")
    words = ("export", "--onnx", "--onnx.model", str(tmp_path / "model"))
    with pytest.raises(SystemExit):
        cli.main([*words, "--run.root", str(tmp_path)])
    assert notes.read_text() == "mine"
