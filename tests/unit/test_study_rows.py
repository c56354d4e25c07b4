"""The file of a study's rows: what a kill, another study or a hand can do to it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from magicbert.errors import UserError
from magicbert.study.rows import RowFile

IDENTITY = {"data": "abc", "model": {"hidden_size": 8, "dropout": 0.1}}


def filled(path: Path) -> Path:
    file = RowFile(path, IDENTITY)
    for number in range(3):
        file.add(f"unit/{number}", {"kind": "alone", "loss": number / 3})
    return path


def test_rows_come_back_by_key_to_the_bit(tmp_path: Path) -> None:
    file = RowFile(filled(tmp_path / "rows.jsonl"), IDENTITY)
    assert len(file) == 3
    assert "unit/1" in file
    assert "unit/3" not in file
    assert [row["loss"] for row in file.of(["unit/2", "unit/9", "unit/0"])] == [2 / 3, 0.0]


def test_nothing_is_written_before_the_first_row(tmp_path: Path) -> None:
    RowFile(tmp_path / "rows.jsonl", IDENTITY)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("cut", [1, 5, 30])
def test_a_torn_last_line_is_dropped_and_its_unit_can_be_added_again(
    tmp_path: Path, cut: int
) -> None:
    path = filled(tmp_path / "rows.jsonl")
    whole = path.read_bytes()
    path.write_bytes(whole[:-cut])
    file = RowFile(path, IDENTITY)
    assert len(file) == 2
    file.add("unit/2", {"kind": "alone", "loss": 2 / 3})
    assert path.read_bytes() == whole


def test_a_kill_while_the_first_line_was_written_leaves_no_row(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"kind": "stu')
    file = RowFile(path, IDENTITY)
    file.add("unit/0", {"kind": "alone"})
    assert [json.loads(line)["kind"] for line in path.read_text().splitlines()] == [
        "study",
        "alone",
    ]


@pytest.mark.parametrize(
    ("identity", "name"),
    [
        ({**IDENTITY, "data": "abd"}, "data"),
        ({**IDENTITY, "model": {"hidden_size": 16, "dropout": 0.1}}, r"model\.hidden_size"),
        ({"data": "abc"}, "model"),
    ],
)
def test_rows_of_another_study_are_refused_and_named(
    tmp_path: Path, identity: dict, name: str
) -> None:
    path = filled(tmp_path / "rows.jsonl")
    before = path.read_bytes()
    with pytest.raises(UserError, match=rf"another study \(it differs in {name}\).*run\.label"):
        RowFile(path, identity)
    assert path.read_bytes() == before


def test_an_option_that_came_later_had_its_default(tmp_path: Path) -> None:
    path = filled(tmp_path / "rows.jsonl")
    newer = {**IDENTITY, "model": {**IDENTITY["model"], "width": 0}}  # type: ignore[dict-item]
    assert len(RowFile(path, newer, {"model": {"width": 0, "dropout": 0.5}})) == 3
    with pytest.raises(UserError, match=r"differs in model\.width"):
        RowFile(path, newer, {"model": {"width": 4}})


@pytest.mark.parametrize("line", ["no json", "[1]", '{"kind": "alone"}'])
def test_a_damaged_line_is_named(tmp_path: Path, line: str) -> None:
    path = filled(tmp_path / "rows.jsonl")
    lines = path.read_text().splitlines()
    lines[2] = line
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(UserError, match=r"rows\.jsonl: line 3 is damaged"):
        RowFile(path, IDENTITY)
