"""Lines that are appended to a disk that fills up and empties again."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest

from magicbert.line_file import LineFile


def test_a_full_disk_delays_lines_and_says_so_once(tmp_path: Path, monkeypatch, caplog):
    room = 7
    write = os.write

    def limited(descriptor: int, data: bytes) -> int:
        nonlocal room
        if room == 0:
            raise OSError(28, "No space left on device")
        num_written = write(descriptor, data[:room])
        room -= num_written
        return num_written

    caplog.set_level(logging.WARNING, logger="magicbert")
    monkeypatch.setattr(logging.getLogger("magicbert"), "propagate", True)
    with LineFile(tmp_path / "lines") as lines, monkeypatch.context() as patch:
        patch.setattr(os, "write", limited)
        for number in range(4):
            lines.append(f"line {number}")
        assert (tmp_path / "lines").read_text() == "line 0\n"
        room = 3
        lines.append("line 4")
        assert (tmp_path / "lines").read_text() == "line 0\nlin"
        room = 1000
        lines.append("line 5")
    expected = [f"line {number}" for number in range(6)]
    assert (tmp_path / "lines").read_text().splitlines() == expected
    messages = [record.getMessage() for record in caplog.records]
    assert len([m for m in messages if "No space left on device; going on" in m]) == 1
    assert len([m for m in messages if "can be written again" in m]) == 1


def test_dev_full_never_stops_the_writer(caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("magicbert"), "propagate", True)
    lines = LineFile(Path("/dev/full"))
    for number in range(1000):
        lines.append(str(number))
    lines.close()
    messages = [record.getMessage() for record in caplog.records]
    assert messages[0] == "/dev/full: No space left on device; going on, its lines wait in memory"
    assert messages[1:] == ["/dev/full: 1000 lines could not be written"]


@pytest.mark.parametrize("before", ["", "whole\n", "whole\ncut"])
def test_a_line_cut_off_by_a_kill_is_closed_first(tmp_path: Path, before: str):
    file = tmp_path / "lines"
    file.write_text(before)
    with LineFile(file) as lines:
        lines.append("next")
    assert file.read_text().splitlines() == [*before.splitlines(), "next"]
