"""An exported folder works where magicbert is not: a bare interpreter, offline, empty caches."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

import pytest
import torch
from exported_run import ARCHITECTURE, write_retrained, write_run
from safetensors.torch import save_file

from magicbert.bert.extraction import extract
from magicbert.bert.saving import load_supernet
from magicbert.config.roots import ExportConfig
from magicbert.config.sections import RunSection
from magicbert.space import Architecture, SearchSpace
from magicbert.stages import export

PROBE = Path(__file__).with_name("exported_model_probe.py")


# As the search finds them, and as compression does: with a width for each block.
MODELS = (ARCHITECTURE, Architecture.parse("mha2w8-conv3w8-ffn16w12-conv5x24w16"))


@pytest.fixture(scope="module", params=MODELS, ids=str)
def report(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    """What the probe saw of a model exported by the stage."""
    run = write_run(tmp_path_factory.mktemp("runs"))
    write_retrained(run / "retrain", SearchSpace.of(request.param))
    export.run(ExportConfig(run=RunSection(root=str(run.parent), name=run.name)))
    write_expected(run, request.param)
    elsewhere = tmp_path_factory.mktemp("clean")
    output = elsewhere / "report.json"
    arguments = (run / "export", sysconfig.get_path("purelib"), output)
    done = subprocess.run(
        [sys.executable, "-I", "-S", str(PROBE), *map(str, arguments)],
        cwd=elsewhere, env=clean_environment(elsewhere), capture_output=True, text=True,
        timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    seen: dict[str, Any] = json.loads(output.read_text())
    return seen


def clean_environment(folder: Path) -> dict[str, str]:
    """Returns an environment without Python settings, with caches in a new folder."""
    kept = ("PATH", "LANG", "LD_LIBRARY_PATH", "OMP_NUM_THREADS", "TMPDIR")
    environment = {name: os.environ[name] for name in kept if name in os.environ}
    return environment | {
        "HOME": str(folder),
        "HF_HOME": str(folder / "hf"),
        "HF_MODULES_CACHE": str(folder / "modules"),
        "HF_HUB_OFFLINE": "1",
    }


def write_expected(run: Path, architecture: Architecture) -> None:
    """Saves a padded batch and what the trained model makes of it."""
    supernet, _ = load_supernet(run / "retrain" / "model")
    model = extract(supernet, architecture)
    inputs = torch.arange(24).view(2, 12) % 11 + 5
    mask = torch.ones_like(inputs)
    mask[1, 7:] = 0
    with torch.no_grad():
        output = model(inputs, mask, output_hidden_states=True)
    tensors = {
        "input_ids": inputs, "attention_mask": mask, "logits": output.logits,
        "hidden": output.hidden_states[-1],
    }  # fmt: skip
    save_file({name: value.contiguous() for name, value in tensors.items()},
              run / "expected.safetensors")  # fmt: skip


def test_magicbert_is_not_there(report: dict[str, Any]) -> None:
    assert report["magicbert"] == []


def test_every_auto_class_loads(report: dict[str, Any]) -> None:
    assert report["classes"] == {
        "AutoModel": "MagicBertModel",
        "AutoModelForMaskedLM": "MagicBertForMaskedLM",
        "AutoModelForSequenceClassification": "MagicBertForSequenceClassification",
        "AutoModelForTokenClassification": "MagicBertForTokenClassification",
        "AutoModelForQuestionAnswering": "MagicBertForQuestionAnswering",
    }
    assert report["num_labels"] == 2


def test_outputs_are_ours(report: dict[str, Any]) -> None:
    assert report["logits_scale"] > 0.1
    assert report["logits_error"] <= 1e-5
    assert report["hidden_error"] <= 1e-5


def test_a_user_can_save_and_load_it_again(report: dict[str, Any]) -> None:
    assert report["again_is_equal"]


def test_the_pipeline_and_the_tokenizer_work(report: dict[str, Any]) -> None:
    assert len(report["fills"]) == 3
    assert report["scores"] == sorted(report["scores"], reverse=True)
    assert report["encoded"] == [2, 5, 6, report["mask_token_id"], 8, 9, 3]
