"""How a run is named and how its ranks are started."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from magicbert.config.fields import option

# File systems take 255; marks of folders that are written aside are added.
MAX_NAME_BYTES = 150


@dataclass(frozen=True, kw_only=True, slots=True)
class RunSection:
    """Where a run stands on disk."""

    root: str = option("runs", "folder that holds all runs")
    name: str = option("run", "name of the run: its tree is <root>/<name>")
    label: str = option("", "suffix of the stage folder, to keep several models in one run")
    verify: Literal["full", "fast"] = option(
        "full", "check of prepared data before use: every byte by sha256, or sizes alone"
    )

    def validate(self) -> Iterator[str]:
        """Yields the problems of this section, as ``field: what is wrong``."""
        if self.name in ("", ".", "..") or not is_plain_name(self.name):
            yield f"name: must be a plain folder name, got {self.name[:80]!r}"
        if not is_plain_name(self.label):
            yield f"label: must be a plain suffix, got {self.label[:80]!r}"


def is_plain_name(name: str) -> bool:
    """Says whether a name stays one folder on any system, also where Unicode is normalised."""
    normal = unicodedata.normalize("NFKC", name)
    is_short = len(name.encode()) <= MAX_NAME_BYTES
    return is_short and normal not in (".", "..") and not set("/\\").intersection(normal)


@dataclass(frozen=True, kw_only=True, slots=True)
class LaunchSection:
    """How ranks are started."""

    num_ranks: int = option(1, "ranks on this host; 0 = one per visible device", within="[0, 4096]")
    hostfile: str = option("", "DeepSpeed hostfile for several hosts; empty = this host only")
    master_port: int = option(0, "rendezvous port; 0 = a free one", within="[0, 65535]")
    threads_per_rank: int = option(
        0,
        "CPU threads per rank; 0 = $OMP_NUM_THREADS, else cores divided by ranks",
        within="[0, 4096]",
    )
    join_minutes: float = option(
        10.0, "limit for all ranks to find each other, in minutes", within="(0, 100000]"
    )
    start_minutes: float = option(
        30.0, "limit for model, checkpoint and first step, in minutes", within="(0, 100000]"
    )
    step_minutes: float = option(10.0, "limit of one step, in minutes", within="(0, 100000]")
    evaluate_minutes: float = option(
        60.0, "limit of one evaluation, in minutes", within="(0, 100000]"
    )
    save_minutes: float = option(
        60.0, "limit of one save, and of writing the result, in minutes", within="(0, 100000]"
    )
