from __future__ import annotations

import ast
import json
import logging
import sys
from pathlib import Path

import pytest
import torch
import yaml
from exported_run import ARCHITECTURE, write_prepared, write_retrained, write_run

from magicbert.bert import modeling
from magicbert.bert.exported import modeling_files, verify_export
from magicbert.bert.extraction import extract
from magicbert.bert.modeling.configuration_magicbert import AUTO_MAP
from magicbert.bert.modeling.modeling_magicbert import MagicBertForMaskedLM
from magicbert.bert.saving import load_supernet
from magicbert.config.reading import load_config
from magicbert.config.roots import ExportConfig
from magicbert.config.sections import RunSection
from magicbert.data.manifest import read_manifest
from magicbert.errors import UserError
from magicbert.finetune.grid import RESULTS_SCHEMA
from magicbert.finetune.pretrained import folder_identity
from magicbert.records import file_digest, read_record, write_record
from magicbert.space import SearchSpace
from magicbert.stages import export

MODELING = Path(modeling.__file__).parent


@pytest.fixture
def prepared_run(tmp_path: Path) -> Path:
    return write_run(tmp_path)


def config(run: Path, label: str = "") -> ExportConfig:
    return ExportConfig(run=RunSection(root=str(run.parent), name=run.name, label=label))


def test_code_is_copied_byte_for_byte(prepared_run: Path) -> None:
    export.run(config(prepared_run))
    copied = {path.name for path in (prepared_run / "export").glob("*.py")}
    assert copied == {path.name for path in MODELING.glob("*.py")} - {"__init__.py"}
    for name in copied:
        assert (prepared_run / "export" / name).read_bytes() == (MODELING / name).read_bytes()


def test_modeling_folder_is_flat_and_self_contained() -> None:
    assert not [path for path in MODELING.iterdir() if path.is_dir() and path.name != "__pycache__"]
    # That the kernels are imported inside `try` is a house test's.
    allowed = ("torch", "transformers", "magicbert_kernels")
    for path in modeling_files():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom):
                assert node.level <= 1, path.name
                if node.level == 1:
                    assert (MODELING / f"{node.module}.py").is_file(), path.name
                    continue
                names = [node.module or ""]
            elif isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            else:
                continue
            for name in (name.split(".")[0] for name in names):
                assert name in allowed or name in sys.stdlib_module_names, (path.name, name)


def test_auto_map_names_classes_that_exist() -> None:
    for target in AUTO_MAP.values():
        module, name = target.split(".")
        assert f"class {name}(" in (MODELING / f"{module}.py").read_text()


def test_the_manifest_has_the_digest_of_every_file(prepared_run: Path) -> None:
    export.run(config(prepared_run))
    folder = prepared_run / "export"
    record = read_record(folder / "manifest.json", "magicbert/export/1")
    found = {path.name for path in folder.iterdir()}
    assert set(record["files"]) == found - {"manifest.json"}
    assert record["files"]["config.json"] == file_digest(folder / "config.json")
    assert {"model.safetensors", "tokenizer.json", "tokenizer_config.json", "README.md"} <= found
    assert record["provenance"]["data_digest"] == read_manifest(prepared_run / "prepare").digest
    assert record["provenance"]["commit"] == "0123abc"
    assert len({path.stat().st_mode for path in folder.iterdir()}) == 1
    verify_export(folder)
    (folder / "heads.py").write_text("changed")
    (folder / "extra.txt").write_text("new")
    with pytest.raises(UserError, match=r"extra\.txt, heads\.py"):
        verify_export(folder)


def test_weights_and_configuration(prepared_run: Path) -> None:
    export.run(config(prepared_run))
    saved = json.loads((prepared_run / "export" / "config.json").read_text())
    assert saved["auto_map"] == AUTO_MAP
    assert saved["architecture"] == str(ARCHITECTURE)
    assert saved["model_type"] == "magicbert"
    loaded = MagicBertForMaskedLM.from_pretrained(prepared_run / "export").eval()
    supernet, _ = load_supernet(prepared_run / "retrain" / "model")
    inputs = torch.arange(5, 15)[None]
    assert torch.equal(loaded(inputs).logits, extract(supernet, ARCHITECTURE)(inputs).logits)


def test_the_card_says_what_the_model_is(prepared_run: Path) -> None:
    export.run(config(prepared_run))
    card = (prepared_run / "export" / "README.md").read_text()
    front = yaml.safe_load(card.split("---")[1])
    assert front["license"] == "apache-2.0"
    assert front["pipeline_tag"] == "fill-mask"
    model = MagicBertForMaskedLM.from_pretrained(prepared_run / "export").model
    total = sum(parameter.numel() for parameter in model.parameters())
    convolution = sum(p.numel() for p in model.encoder.layers[1].parameters())
    assert f"| **encoder** | 4 | {total:,} | 100.0% |" in card
    assert f"| `conv3` | 1 | {convolution:,} |" in card
    for word in (str(ARCHITECTURE), "1.2500", "34,567", "0123abc", "| `conv5x24` | 1 |"):
        assert word in card
    assert read_manifest(prepared_run / "prepare").digest in card
    assert str(prepared_run) not in card
    assert "not finished" not in card


def test_the_card_has_corpus_settings_and_limits(prepared_run: Path) -> None:
    settings = "optimizer: {learning_rate: 0.0005}\ntraining: {rows_per_step: 2048}\n"
    (prepared_run / "retrain" / "config.yaml").write_text(settings)
    export.run(config(prepared_run))
    card = (prepared_run / "export" / "README.md").read_text()
    for line in (
        "| training text | 0 documents, 0 tokens |",
        "| rows of an optimizer step | 2,048 |",
        "| peak learning rate | 0.0005 |",
        "| hours of training, on the wall | 0.00 |",
        "No fine-tuning of this model is recorded",
        "Rows of more than 20 tokens must be cut.",
    ):
        assert line in card


def test_the_card_has_the_scores_of_this_very_model(prepared_run: Path) -> None:
    export.run(config(prepared_run))
    row = {"task": "cola", "metric": "matthews", "median": 0.421, "minimum": 0.4,
           "maximum": 0.44, "num_seeds": 3, "learning_rate": 2e-5}  # fmt: skip
    file = prepared_run / "finetune" / "results.json"
    identity = folder_identity(prepared_run / "export")
    write_record(file, RESULTS_SCHEMA, {"model_identity": identity, "summary": [row]})
    export.run(config(prepared_run))
    card = (prepared_run / "export" / "README.md").read_text()
    assert "| cola | matthews | 42.1 | 40.0 to 44.0 | 3 | 2e-05 |" in card
    verify_export(prepared_run / "export")
    write_record(file, RESULTS_SCHEMA, {"model_identity": "another", "summary": [row]})
    export.run(config(prepared_run))
    assert "| cola |" not in (prepared_run / "export" / "README.md").read_text()


def test_an_older_export_is_replaced_whole(prepared_run: Path) -> None:
    export.run(config(prepared_run))
    (prepared_run / "export" / "leftover.txt").write_text("of the first export")
    write_retrained(prepared_run / "retrain")
    export.run(config(prepared_run))
    verify_export(prepared_run / "export")
    assert sorted(path.name for path in prepared_run.iterdir()) == ["export", "prepare", "retrain"]


def test_a_folder_that_is_not_an_export_is_left_alone(prepared_run: Path) -> None:
    (prepared_run / "export").mkdir()
    (prepared_run / "export" / "thesis.tex").write_text("mine")
    with pytest.raises(UserError, match="is not an export of magicbert"):
        export.run(config(prepared_run))
    assert (prepared_run / "export" / "thesis.tex").read_text() == "mine"


def test_labels_keep_models_apart(prepared_run: Path) -> None:
    (prepared_run / "retrain").rename(prepared_run / "retrain-random1")
    with pytest.raises(UserError, match=r"this run has retrain-random1: set run\.label"):
        export.run(config(prepared_run))
    export.run(config(prepared_run, label="random1"))
    card = (prepared_run / "export-random1" / "README.md").read_text()
    assert "# demo-random1" in card
    assert "| stage | `retrain-random1` |" in card


def test_an_unfinished_training_is_said(
    prepared_run: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("magicbert"), "propagate", True)
    (prepared_run / "retrain" / "result.json").unlink()
    (prepared_run / "retrain" / "environment.json").write_text("{cut o")
    with caplog.at_level(logging.WARNING, logger="magicbert"):
        export.run(config(prepared_run))
    assert "not finished" in caplog.text
    assert "left no result" in (prepared_run / "export" / "README.md").read_text()


def test_missing_stages_are_named(tmp_path: Path) -> None:
    run = write_run(tmp_path)
    (run / "retrain").rename(tmp_path / "elsewhere")
    with pytest.raises(UserError, match="no retrained model; run `magicbert retrain` first"):
        export.run(config(run))
    (run / "prepare" / "manifest.json").unlink()
    with pytest.raises(UserError, match="run `magicbert prepare` first"):
        export.run(config(run))
    assert not (run / "export").exists()


def test_a_missing_tokenizer_leaves_nothing_half_written(prepared_run: Path) -> None:
    (prepared_run / "prepare" / "tokenizer" / "tokenizer.json").unlink()
    with pytest.raises(UserError, match=r"tokenizer\.json: missing"):
        export.run(config(prepared_run))
    assert sorted(path.name for path in prepared_run.iterdir()) == ["prepare", "retrain"]


def test_files_that_do_not_belong_together_are_refused(prepared_run: Path) -> None:
    write_prepared(prepared_run / "prepare", vocab_size=99)
    with pytest.raises(UserError, match="trained on other data"):
        export.run(config(prepared_run))


def test_a_supernet_is_not_a_model(prepared_run: Path) -> None:
    write_retrained(prepared_run / "retrain", SearchSpace.uniform(2, ("mha2", "ffn")))
    with pytest.raises(UserError, match="holds 4 architectures"):
        export.run(config(prepared_run))


def test_the_tiny_configuration_reads() -> None:
    file = Path(__file__).parents[2] / "configs" / "tiny" / "export.yaml"
    assert load_config(ExportConfig, str(file), {}).run.name == "quickstart"
