"""Which kernels an encoder runs on: named by the configuration, chosen by device, never silent."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
import torch
from bert_examples import FULL, batch, config, supernet
from magicbert_kernels import backend as kernels_backend

from magicbert.bert.extraction import extract
from magicbert.bert.modeling import fused
from magicbert.bert.modeling.configuration_magicbert import MagicBertConfig
from magicbert.bert.modeling.modeling_magicbert import MagicBertModel
from magicbert.bert.rehearsal import rehearsal_supernet
from magicbert.bert.saving import load_supernet, save_supernet
from magicbert.bert.supernet import build_supernet
from magicbert.config.sections import ModelSection
from magicbert.space import Architecture, SearchSpace

PATH = Architecture.parse("mha2-conv3-ffn24-conv5x24")
TOKENS = torch.arange(1, 11).view(1, 10)


def modules_backends(module: torch.nn.Module) -> set[str]:
    return {part.backend for part in module.modules() if hasattr(part, "backend")}


def test_the_backend_asked_for_reaches_every_operator() -> None:
    space = SearchSpace.uniform(2, ("mha2", "ffn24", "conv3", "conv5x24"))
    section = ModelSection(hidden_size=16, max_length=20)
    built = build_supernet(space, section, 60, 0, seed=0, backend="torch")
    assert modules_backends(built) == {"torch"}
    assert modules_backends(build_supernet(space, section, 60, 0, seed=0)) == {"auto"}
    assert modules_backends(rehearsal_supernet(space, section, 60, is_packed=True)) == {"torch"}


def test_a_configuration_from_before_the_kernels_still_loads(tmp_path: Path) -> None:
    MagicBertModel(config(str(PATH))).save_pretrained(tmp_path)
    file = tmp_path / "config.json"
    written = json.loads(file.read_text())
    written.pop("backend", None)
    file.write_text(json.dumps(written))
    assert MagicBertConfig.from_pretrained(tmp_path).backend == "auto"
    assert modules_backends(MagicBertModel.from_pretrained(tmp_path)) == {"auto"}


def test_what_leaves_the_machine_names_no_backend(tmp_path: Path) -> None:
    built = supernet(backend="torch")
    assert extract(built, PATH).config.backend == "auto"
    assert built.config.backend == "torch"
    save_supernet(tmp_path / "supernet", built, {})
    assert modules_backends(load_supernet(tmp_path / "supernet")[0]) == {"auto"}


def test_triton_by_name_is_refused_where_it_cannot_run() -> None:
    model = supernet(backend="triton")
    with pytest.raises(RuntimeError, match="triton does not run on 'cpu'"):
        model(batch(FULL), PATH)


def test_an_unknown_backend_is_refused() -> None:
    with pytest.raises(RuntimeError, match="auto, triton, torch"):
        MagicBertModel(config(str(PATH), backend="cuda"))(TOKENS)


def test_without_the_package_auto_is_torch_and_triton_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(fused, "HAS_KERNELS", False)
    assert fused.backend_on("auto", "cuda") == "torch"
    assert MagicBertModel(config(str(PATH)))(TOKENS).last_hidden_state.isfinite().all()
    with pytest.raises(RuntimeError, match="magicbert_kernels, which is not installed"):
        MagicBertModel(config(str(PATH), backend="triton"))(TOKENS)


def test_the_choice_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    kernels_backend._resolve.cache_clear()
    model = supernet().eval()
    with caplog.at_level(logging.INFO, logger="magicbert.kernels"):
        for _ in range(3):
            model(batch(FULL), PATH)
    said = [record.getMessage() for record in caplog.records]
    assert said == ["kernels: backend torch on cpu (requested: auto)"]
