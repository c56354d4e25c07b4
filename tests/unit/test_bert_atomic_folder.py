"""A folder that takes another one's place, also when its writer is killed."""

from __future__ import annotations

from pathlib import Path

import pytest

from magicbert.bert import atomic_folder as module
from magicbert.bert.atomic_folder import atomic_folder, exchange

MARK = "0123456789abcdef" * 2


def write(folder: Path, text: str) -> None:
    with atomic_folder(folder) as aside:
        (aside / "file").write_text(text)


def test_the_older_folder_is_replaced_in_one_step(tmp_path: Path) -> None:
    write(tmp_path / "one", "old")
    write(tmp_path / "one", "new")
    assert (tmp_path / "one" / "file").read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["one"]


def test_without_an_exchange_two_renames_do(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(module, "exchange", lambda one, other: False)
    test_the_older_folder_is_replaced_in_one_step(tmp_path)


def test_exchange_swaps_and_says_whether_it_could(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write(tmp_path / name, name)
    assert exchange(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "a" / "file").read_text() == "b"
    assert not exchange(tmp_path / "a", tmp_path / "absent")


def test_what_killed_writers_left_goes_but_not_that_of_others(tmp_path: Path) -> None:
    (tmp_path / f".one.{MARK}.tmp").mkdir()
    (tmp_path / f".one.two.{MARK}.tmp").mkdir()
    write(tmp_path / "one", "new")
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == [f".one.two.{MARK}.tmp", "one"]


def test_an_older_folder_that_lost_its_name_gets_it_back(tmp_path: Path) -> None:
    write(tmp_path / "one", "old")
    (tmp_path / "one").rename(tmp_path / f".one.{MARK}.old")
    with pytest.raises(RuntimeError), atomic_folder(tmp_path / "one"):
        raise RuntimeError("stopped")
    assert (tmp_path / "one" / "file").read_text() == "old"
