"""Checkpoints are whole or absent, and belong to one run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from magicbert.errors import UserError
from magicbert.training.checkpoints import CheckpointStore, RunIdentity
from magicbert.training.checkpoints.manifest import MANIFEST, problem_of
from magicbert.training.ranks import AgreedError, Ranks


@pytest.fixture
def ranks(tmp_path: Path) -> Iterator[Ranks]:
    """A real process group of one rank."""
    store = dist.FileStore(str(tmp_path / "rendezvous"), 1)
    dist.init_process_group("gloo", store=store, rank=0, world_size=1)
    yield Ranks.of_process_group()
    dist.destroy_process_group()


def save(store: CheckpointStore, step: int) -> None:
    store.save(step, {"step": step}, {"weights": torch.full((4,), float(step))})


def test_what_was_saved_comes_back(tmp_path: Path, ranks: Ranks) -> None:
    store = CheckpointStore(tmp_path / "checkpoints", ranks, keep=2)
    assert store.newest() is None
    save(store, 3)
    checkpoint = store.newest()
    assert checkpoint is not None
    assert (checkpoint.step, checkpoint.state) == (3, {"step": 3})
    assert torch.equal(checkpoint.tensors(0)["weights"], torch.full((4,), 3.0))


def test_only_the_last_are_kept_and_leftovers_go(tmp_path: Path, ranks: Ranks) -> None:
    store = CheckpointStore(tmp_path / "checkpoints", ranks, keep=2)
    (tmp_path / "checkpoints" / "step-9.tmp-abc").mkdir(parents=True)
    for step in (1, 2, 10):
        save(store, step)
    assert sorted(path.name for path in store.root.iterdir()) == ["step-10", "step-2"]


@pytest.mark.parametrize("damage", ["flip", "cut", "remove", "no manifest"])
def test_a_damaged_one_is_passed_over(tmp_path: Path, ranks: Ranks, damage: str) -> None:
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
    else:
        (shard.parent / MANIFEST).unlink()
    assert problem_of(shard.parent) is not None
    newest = store.newest()
    assert newest is not None
    assert newest.step == 1


def test_a_failed_save_leaves_nothing_behind(
    tmp_path: Path, ranks: Ranks, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = CheckpointStore(tmp_path / "checkpoints", ranks, keep=2)
    save(store, 1)

    def full_disk(source: Path, target: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "rename", full_disk)
    with pytest.raises(AgreedError, match="No space left"):
        save(store, 2)
    assert [path.name for path in store.root.iterdir()] == ["step-1"]


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
