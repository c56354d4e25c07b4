"""The rows of a study: one line of JSON per finished unit, on disk before the next is begun."""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias

from magicbert.errors import UserError
from magicbert.faults import fault
from magicbert.records import sync, write_text_atomically

Row: TypeAlias = dict[str, Any]
HEAD = "study"


class RowFile:
    """Rows by the key of their unit.

    The first line says what every row depends on. A last line that a kill has cut off is dropped.

    Args:
        path: the file; written from the first row on.
        identity: what every row depends on, as JSON data: digest of the data, sizes, table.
        defaults: of the identity's options; an option that the file does not know, because it was
            written by an earlier version, had its default.

    Raises:
        UserError: the file belongs to another study, or is damaged.
    """

    def __init__(
        self, path: Path, identity: Mapping[str, Any], defaults: Mapping[str, Any] | None = None
    ) -> None:
        self.path = path
        self.identity: Row = json.loads(json.dumps(identity, allow_nan=False))
        self._defaults: Row = json.loads(json.dumps(defaults or {}, allow_nan=False))
        self._rows: dict[str, Row] = {}
        lines = list(read_lines(path))
        if lines:
            self._check(lines[0])
            for number, line in enumerate(lines[1:], start=2):
                if not isinstance(line.get("key"), str):
                    raise damaged(path, number)
                self._rows[line["key"]] = line

    def __len__(self) -> int:
        return len(self._rows)

    def __contains__(self, key: object) -> bool:
        return key in self._rows

    def of(self, keys: Collection[str]) -> list[Row]:
        """Returns the rows of some units, those that are there, in the order of the keys."""
        return [self._rows[key] for key in keys if key in self._rows]

    def add(self, key: str, row: Mapping[str, Any]) -> None:
        """Appends the row of a unit and brings it to the disk.

        Raises:
            OSError: the disk is full; nothing of the row is kept.
        """
        line = {"key": key, **row}
        text = json.dumps(line, allow_nan=False) + "\n"
        if not self._rows:
            head = json.dumps({"kind": HEAD, **self.identity}) + "\n"
            write_text_atomically(self.path, head)
        fault("study.row", count=len(self))
        append_whole(self.path, text)
        self._rows[key] = line

    def _check(self, head: Mapping[str, Any]) -> None:
        """Raises `UserError` that names what the rows there depend on and this study differs in."""
        there = completed({name: v for name, v in head.items() if name != "kind"}, self._defaults)
        if head.get("kind") == HEAD and there == self.identity:
            return
        names = differing(there, self.identity) if head.get("kind") == HEAD else ["first line"]
        raise UserError(
            f"{self.path}: holds the rows of another study (it differs in "
            f"{', '.join(names)}); give another run.label to begin a new one beside it, or take "
            "the former configuration and data"
        )


def read_lines(path: Path) -> Iterator[Row]:
    """Yields the whole lines of a file; a last one that was cut off is removed from the file.

    Raises:
        UserError: another line is no JSON object.
    """
    if not path.is_file():
        return
    content = path.read_bytes()
    end = content.rfind(b"\n") + 1
    if end < len(content):
        os.truncate(path, end)
    for number, text in enumerate(content[:end].splitlines(), start=1):
        try:
            line = json.loads(text)
        except ValueError as error:
            raise damaged(path, number) from error
        if not isinstance(line, dict):
            raise damaged(path, number)
        yield line


def append_whole(path: Path, text: str) -> None:
    """Appends one line; if it cannot be written whole, the file is as it was."""
    size = path.stat().st_size
    try:
        with path.open("ab") as stream:
            stream.write(text.encode())
            stream.flush()
            os.fsync(stream.fileno())
    except OSError:
        os.truncate(path, size)
        raise
    sync(path.parent)


def differing(there: Mapping[str, Any], here: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Returns the dotted names in which two trees differ."""
    names = []
    for name in sorted({*there, *here}):
        one, other = there.get(name), here.get(name)
        if isinstance(one, dict) and isinstance(other, dict):
            names += differing(one, other, f"{prefix}{name}.")
        elif one != other:
            names.append(f"{prefix}{name}")
    return names


def completed(tree: Mapping[str, Any], defaults: Mapping[str, Any]) -> Row:
    """Returns a tree with the defaults of what it lacks."""
    both = {**defaults, **tree}
    for name in tree.keys() & defaults.keys():
        if isinstance(tree[name], dict) and isinstance(defaults[name], dict):
            both[name] = completed(tree[name], defaults[name])
    return both


def damaged(path: Path, number: int) -> UserError:
    """Returns the error of a line that this program never writes."""
    return UserError(
        f"{path}: line {number} is damaged; remove the line, and its unit is done again"
    )
