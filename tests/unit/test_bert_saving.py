from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from bert_examples import PACKED, batch, config, randomise, supernet
from safetensors.torch import load_file, save_file

from magicbert.bert.atomic_folder import atomic_folder
from magicbert.bert.saving import load_supernet, save_supernet
from magicbert.bert.supernet import BertSupernet
from magicbert.errors import UserError
from magicbert.records import write_record
from magicbert.space import Architecture, SearchSpace

PATH = Architecture.parse("mha2-conv3-ffn24-conv5x24")


def test_round_trip_is_exact(tmp_path: Path) -> None:
    model = randomise(supernet())
    save_supernet(tmp_path / "supernet", model, {"step": 12, "path": str(PATH)})
    loaded, details = load_supernet(tmp_path / "supernet")
    assert details == {"step": 12, "path": str(PATH)}
    assert loaded.space == model.space
    assert not loaded.training
    assert loaded.config.to_dict() == model.config.to_dict()
    given = batch(PACKED)
    assert torch.equal(loaded(given, PATH).hidden, model.eval()(given, PATH).hidden)
    assert all(p.requires_grad and p.dtype == torch.float32 for p in loaded.parameters())


def test_a_retrained_model_is_a_supernet_over_one_path(tmp_path: Path) -> None:
    model = BertSupernet(SearchSpace.of(PATH), config(), seed=1)
    save_supernet(tmp_path / "model", model, {})
    loaded, _ = load_supernet(tmp_path / "model")
    assert loaded.space.count() == 1
    assert loaded.state_dict().keys() == model.state_dict().keys()


def test_weights_are_written_as_fp32(tmp_path: Path) -> None:
    save_supernet(tmp_path / "supernet", supernet().bfloat16(), {})
    weights = load_file(tmp_path / "supernet" / "model.safetensors")
    assert {value.dtype for value in weights.values()} == {torch.float32}


def test_an_older_one_is_replaced_and_nothing_is_left_beside(tmp_path: Path) -> None:
    for step in (1, 2):
        save_supernet(tmp_path / "supernet", supernet(seed=step), {"step": step})
    assert load_supernet(tmp_path / "supernet")[1] == {"step": 2}
    assert [path.name for path in tmp_path.iterdir()] == ["supernet"]


def test_a_failed_write_keeps_the_older_one(tmp_path: Path) -> None:
    save_supernet(tmp_path / "supernet", supernet(), {"step": 1})
    with pytest.raises(TypeError):
        save_supernet(tmp_path / "supernet", supernet(), {"step": object()})
    assert load_supernet(tmp_path / "supernet")[1] == {"step": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["supernet"]


def test_a_failed_first_write_leaves_nothing(tmp_path: Path) -> None:
    def fail() -> None:
        with atomic_folder(tmp_path / "new") as aside:
            (aside / "half").write_text("half")
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_missing_and_damaged_files_are_named(tmp_path: Path) -> None:
    folder = tmp_path / "supernet"
    with pytest.raises(UserError, match=r"supernet\.json: no such file"):
        load_supernet(folder)
    save_supernet(folder, supernet(), {})
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    with pytest.raises(UserError, match=r"model\.safetensors: missing, damaged"):
        load_supernet(folder)
    weights.unlink()
    with pytest.raises(UserError, match=r"model\.safetensors: missing, damaged"):
        load_supernet(folder)


def test_weights_of_another_space_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "supernet"
    save_supernet(folder, supernet(), {})
    record = json.loads((folder / "supernet.json").read_text())
    for name in ("schema", "sha256"):
        del record[name]
    record["space"][0] = ["mha8"]
    write_record(folder / "supernet.json", "magicbert/supernet/1", record)
    with pytest.raises(UserError, match=r"does not fit supernet\.json"):
        load_supernet(folder)


def test_a_foreign_record_is_refused(tmp_path: Path) -> None:
    write_record(tmp_path / "supernet.json", "magicbert/prepare/1", {"space": []})
    save_file({"x": torch.zeros(1)}, tmp_path / "model.safetensors")
    with pytest.raises(UserError, match="expected schema magicbert/supernet/1"):
        load_supernet(tmp_path)
