"""What a block was made from: a later start, or a choice, must not mix it with anything else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from magicbert.config.reading import to_tree
from magicbert.records import digest_of, read_record, write_record
from magicbert.training.checkpoints import RunIdentity
from magicbert.training.checkpoints.identity import flatten

FILE = "origin.json"
SCHEMA = "magicbert/block-origin/1"
# What decides a block's table; the rest of the configuration may differ between two starts.
SECTIONS = ("blocks", "masking", "sampling", "alignment", "optimizer", "training")


@dataclass(frozen=True)
class BlockOrigin:
    """Settings and inputs of a block's training.

    Attributes:
        settings: the sections that decide its result.
        teacher: digest of the teacher's weights.
        data: digest of the prepared data.
    """

    settings: Mapping[str, Any]
    teacher: str
    data: str

    @classmethod
    def of(cls, config: Any, teacher: str, data: str) -> BlockOrigin:
        """Takes the sections of a configuration."""
        tree = to_tree(config)
        return cls({name: tree[name] for name in SECTIONS}, teacher, data)

    @property
    def digests(self) -> dict[str, str]:
        """What a table says of where it comes from."""
        return {
            "teacher": self.teacher,
            "data": self.data,
            "settings": digest_of(dict(self.settings)),
        }

    def write(self, folder: Path) -> None:
        """Writes the origin into a block's folder."""
        payload = {"settings": self.settings, "teacher": self.teacher, "data": self.data}
        write_record(folder / FILE, SCHEMA, payload)

    def check(self, folder: Path) -> None:
        """Raises `UserError` if the block in a folder was begun with something else."""
        if not (folder / FILE).is_file():
            return
        former = read_record(folder / FILE, SCHEMA)
        facts = {"teacher": self.teacher, "data": self.data}
        then = {name: former[name] for name in facts}
        RunIdentity.of(self.settings, facts).check(
            {**dict(flatten(former["settings"])), **then}, str(folder)
        )
