"""Checkpoints are whole or absent, and belong to one run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from magicbert import faults
from magicbert.errors import UserError
from magicbert.faults import Rule
from magicbert.records import read_record, write_record
from magicbert.training.checkpoints import (
    CheckpointStore,
    Layout,
    RunIdentity,
    ShardData,
    free_space,
    retention,
)
from magicbert.training.checkpoints.layout import GroupLayout
from magicbert.training.checkpoints.manifest import MANIFEST, SCHEMA
from magicbert.training.path_sparse.engine import PathSparseEngine
from magicbert.training.path_sparse.placement import Piece
from magicbert.training.ranks import AgreedError, Ranks


@pytest.fixture
def ranks(tmp_path: Path) -> Iterator[Ranks]:
    """A real process group of one rank."""
    store = dist.FileStore(str(tmp_path / "rendezvous"), 1)
    dist.init_process_group("gloo", store=store, rank=0, world_size=1)
    yield Ranks.of_process_group()
    dist.destroy_process_group()


def shard_of(step: int) -> ShardData:
    layout = Layout({"shared": GroupLayout(4, ("weight",), (Piece(0, 0, 4, 0),))})
    return ShardData({"shared:master": torch.full((4,), float(step))}, layout)


def save(store: CheckpointStore, step: int) -> None:
    store.save(step, {"step": step}, shard_of(step))


def names(store: CheckpointStore) -> list[str]:
    return sorted(path.name for path in store.root.iterdir())


def newest_step(store: CheckpointStore) -> int:
    checkpoint = store.newest()
    assert checkpoint is not None
    return checkpoint.step


def rewrite(path: Path, schema: str, **changes: Any) -> None:
    """Changes a record and gives it the digest that it then has."""
    write_record(path, schema, {**read_record(path, schema), **changes})


def test_what_was_saved_comes_back(tmp_path: Path, ranks: Ranks) -> None:
    store = CheckpointStore(tmp_path / "checkpoints", ranks, keep=2)
    assert store.newest() is None
    save(store, 3)
    checkpoint = store.newest()
    assert checkpoint is not None
    assert (checkpoint.step, checkpoint.state) == (3, {"step": 3})
    assert torch.equal(checkpoint.shard(0).tensor("shared:master"), torch.full((4,), 3.0))


def test_only_the_last_are_kept_and_leftovers_go(tmp_path: Path, ranks: Ranks) -> None:
    store = CheckpointStore(tmp_path / "checkpoints", ranks, keep=2)
    for name in ("step-9.tmp-abc", "step-9.trash-abc"):
        (store.root / name).mkdir(parents=True)
    for step in (1, 2, 10):
        save(store, step)
    assert names(store) == ["step-10", "step-2"]


def test_leftovers_go_at_the_start(tmp_path: Path, ranks: Ranks) -> None:
    store = CheckpointStore(tmp_path / "checkpoints", ranks, keep=2)
    save(store, 1)
    for name in ("step-9.tmp-abc", "step-9.trash-abc"):
        (store.root / name).mkdir(parents=True)
    store.open()
    assert names(store) == ["step-1"]


def test_a_damaged_one_does_not_count_as_kept(tmp_path: Path, ranks: Ranks) -> None:
    store = CheckpointStore(tmp_path / "checkpoints", ranks, keep=2)
    for step in (1, 2):
        save(store, step)
    (store.root / "step-2" / "state.json").unlink()
    later = CheckpointStore(store.root, ranks, keep=2)
    assert newest_step(later) == 1
    save(later, 3)
    assert names(later) == ["step-1", "step-2", "step-3"], "1 and 3 are the two that verify"
    save(later, 4)
    assert names(later) == ["step-3", "step-4"]


@pytest.mark.parametrize("damage", ["flip", "cut", "remove", "no manifest", "link", "renamed"])
def test_a_damaged_one_is_passed_over(
    tmp_path: Path, ranks: Ranks, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    store = CheckpointStore(tmp_path / "checkpoints", ranks, keep=2)
    save(store, 1)
    save(store, 2)
    shard = store.root / "step-2" / "shard-00000.safetensors"
    data = shard.read_bytes()
    if damage == "flip":
        shard.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    elif damage == "cut":
        shard.write_bytes(data[:-1])
    elif damage == "remove":
        shard.unlink()
    elif damage == "link":
        shard.rename(tmp_path / "elsewhere")
        shard.symlink_to(tmp_path / "elsewhere")
    elif damage == "renamed":
        shard.parent.rename(store.root / "step-7")
    else:
        (shard.parent / MANIFEST).unlink()
    assert newest_step(store) == 1
    assert "skipping the checkpoint of step" in caplog.text
    expected = {"no manifest": MANIFEST, "renamed": "it is of step 2"}
    assert expected.get(damage, shard.name) in caplog.text


def test_if_none_verifies_nothing_begins_anew(tmp_path: Path, ranks: Ranks) -> None:
    store = CheckpointStore(tmp_path / "checkpoints", ranks, keep=2)
    save(store, 1)
    (store.root / "step-1" / "state.json").unlink()
    with pytest.raises(AgreedError, match=r"no checkpoint there verifies(.|\n)*state.json is miss"):
        store.newest()


NONSENSE: list[Any] = [None, -1, 1.5, True, "x", [], {}, [1], [{"name": "../x"}], 2**70]


@pytest.mark.parametrize("value", NONSENSE, ids=str)
@pytest.mark.parametrize("name", ["step", "num_ranks", "zero_stage", "config_digest", "files"])
def test_a_manifest_of_nonsense_is_one_message(
    tmp_path: Path, ranks: Ranks, name: str, value: Any
) -> None:
    store = CheckpointStore(tmp_path / "checkpoints", ranks, keep=2)
    save(store, 1)
    rewrite(store.root / "step-1" / MANIFEST, SCHEMA, **{name: value})
    if name == "config_digest" and isinstance(value, str):
        return  # any text is a digest, and none is relied on
    with pytest.raises(AgreedError, match="no checkpoint there verifies"):
        store.newest()


def test_the_format_of_another_version_is_named(tmp_path: Path, ranks: Ranks) -> None:
    store = CheckpointStore(tmp_path / "checkpoints", ranks, keep=2)
    save(store, 1)
    path = store.root / "step-1" / MANIFEST
    write_record(path, "magicbert/checkpoint/1", read_record(path, SCHEMA))
    with pytest.raises(AgreedError, match="found magicbert/checkpoint/1"):
        store.newest()


def test_a_failed_save_leaves_nothing_behind(
    tmp_path: Path, ranks: Ranks, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = CheckpointStore(tmp_path / "checkpoints", ranks, keep=2)
    save(store, 1)
    points = (
        "shard.before", "shard.written", "shard.synced", "state.before", "state.written",
        "manifest.before", "manifest.written", "rename.before",
    )  # fmt: skip
    for point in points:
        rule = Rule.parse(f"save.{point}=ENOSPC@step:2")
        monkeypatch.setattr(faults, "RULES", [rule])
        with pytest.raises(AgreedError, match="No space left"):
            save(store, 2)
        assert rule.num_hits == 1
        assert names(store) == ["step-1"], point
    save(store, 2)
    assert newest_step(store) == 2


def test_a_failed_deletion_is_no_failed_save(
    tmp_path: Path, ranks: Ranks, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    store = CheckpointStore(tmp_path / "checkpoints", ranks, keep=1)
    save(store, 1)
    monkeypatch.setattr(faults, "RULES", [Rule.parse("save.retention.before=EROFS")])
    save(store, 2)
    assert "step 1 could not be deleted" in caplog.text
    save(store, 3)
    assert names(store) == ["step-3"]


def test_a_folder_that_cannot_be_listed_is_no_failed_save(
    tmp_path: Path, ranks: Ranks, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    store = CheckpointStore(tmp_path / "checkpoints", ranks, keep=1)

    def refuse(root: Path) -> list[Path]:
        raise OSError(30, "Read-only file system", str(root))

    monkeypatch.setattr(retention, "published_steps", refuse)
    monkeypatch.setattr(retention, "leftovers", refuse)
    save(store, 1)
    assert (store.root / "step-1").is_dir()
    assert caplog.text.count("Read-only file system") == 2


def test_room_is_asked_for_before_anything_is_written(
    tmp_path: Path, ranks: Ranks, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = CheckpointStore(tmp_path / "checkpoints", ranks, keep=2)
    monkeypatch.setattr(free_space, "free_bytes", lambda folder: 1000)
    with pytest.raises(AgreedError, match="65,536 bytes needed, 1,000 free in"):
        save(store, 1)
    assert names(store) == []


def test_a_link_in_the_place_of_the_folder_is_refused(tmp_path: Path, ranks: Ranks) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "checkpoints").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(AgreedError, match="is a symbolic link"):
        CheckpointStore(tmp_path / "checkpoints", ranks, keep=2).open()


def test_a_file_in_the_place_of_the_folder_is_refused(tmp_path: Path, ranks: Ranks) -> None:
    (tmp_path / "checkpoints").write_text("")
    with pytest.raises(AgreedError, match="checkpoints cannot be written there"):
        CheckpointStore(tmp_path / "checkpoints", ranks, keep=2).open()


@pytest.mark.parametrize("name", ["save_checkpoint", "load_checkpoint"])
def test_the_pickles_of_deepspeed_are_refused(name: str, tmp_path: Path) -> None:
    engine = PathSparseEngine.__new__(PathSparseEngine)
    with pytest.raises(UserError, match="neither written nor read"):
        getattr(engine, name)(str(tmp_path))


CONFIG = {
    "run": {"name": "a"},
    "optimizer": {"learning_rate": 0.1, "schedule": "linear"},
    "training": {"num_steps": 10, "log_every": 5, "max_minutes": 0.0},
}


def differences(**training: object) -> list[str]:
    now = {**CONFIG, "training": {**CONFIG["training"], **training}}
    identity = RunIdentity.of(now, {"space": [["ffn"]]})
    return list(identity.differences(RunIdentity.of(CONFIG, {"space": [["ffn"]]}).values))


def test_what_only_changes_the_log_may_change() -> None:
    assert differences(log_every=1, max_minutes=3.0) == []


def test_what_changes_the_steps_may_not() -> None:
    assert differences(num_steps=11) == ["training.num_steps: 10 -> 11"]


def test_a_constant_rate_may_be_trained_longer() -> None:
    optimizer = {"learning_rate": 0.1, "schedule": "constant"}
    then = RunIdentity.of({**CONFIG, "optimizer": optimizer}, {})
    longer = {**CONFIG, "optimizer": optimizer, "training": {**CONFIG["training"], "num_steps": 99}}
    assert list(RunIdentity.of(longer, {}).differences(then.values)) == []


def test_another_space_is_refused_with_both_spaces() -> None:
    then = RunIdentity.of(CONFIG, {"space": [["ffn"]]})
    with pytest.raises(UserError, match=r"space: \[\['ffn'\]\] -> \[\['mha2'\]\]"):
        RunIdentity.of(CONFIG, {"space": [["mha2"]]}).check(then.values, "step-1")
