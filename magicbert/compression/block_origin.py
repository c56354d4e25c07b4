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
# An option that came after the first tables: where it asks for nothing new, it is left out.
LATER = {"training": {"bin_by": "size-and-flops"}}
# What decides a block's table; the rest of the configuration may differ between two starts.
SECTIONS = ("blocks", "masking", "sampling", "alignment", "optimizer", "training")


@dataclass(frozen=True)
class BlockOrigin:
    """Settings and inputs of a block's training.

    Attributes:
        settings: the sections that decide its result.
        teacher: digest of the teacher's weights.
        data: digest of the prepared data.
        latency: digest of the latencies that the bins follow; empty = they follow FLOPs.
    """

    settings: Mapping[str, Any]
    teacher: str
    data: str
    latency: str = ""

    @classmethod
    def of(cls, config: Any, teacher: str, data: str, latency: str = "") -> BlockOrigin:
        """Takes the sections of a configuration."""
        tree = to_tree(config)
        settings = {name: tree[name] for name in SECTIONS}
        for name, options in LATER.items():
            kept = {k: v for k, v in settings[name].items() if options.get(k) != v}
            settings[name] = kept
        return cls(settings, teacher, data, latency)

    @property
    def inputs(self) -> dict[str, str]:
        """What it was made from, beside settings."""
        known = {"teacher": self.teacher, "data": self.data, "latency": self.latency}
        return {name: digest for name, digest in known.items() if name != "latency" or digest}

    @property
    def digests(self) -> dict[str, str]:
        """What a table says of where it comes from."""
        return {**self.inputs, "settings": digest_of(dict(self.settings))}

    def write(self, folder: Path) -> None:
        """Writes the origin into a block's folder."""
        write_record(folder / FILE, SCHEMA, {"settings": self.settings, **self.inputs})

    def check(self, folder: Path) -> None:
        """Raises `UserError` if the block in a folder was begun with something else."""
        if not (folder / FILE).is_file():
            return
        former = read_record(folder / FILE, SCHEMA)
        facts = self.inputs
        then = {name: former[name] for name in (*facts, "latency") if name in former}
        RunIdentity.of(self.settings, facts).check(
            {**dict(flatten(former["settings"])), **then}, str(folder)
        )
