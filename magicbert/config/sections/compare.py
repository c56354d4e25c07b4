"""Models side by side."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from magicbert.config.fields import option


@dataclass(frozen=True, kw_only=True, slots=True)
class ComparedModelSection:
    """One row of the table."""

    name: str = option("", "name of the row, such as 'searched, MLM'")
    kind: Literal["searched", "compressed", "hand-made", "other"] = option(
        "other", "how the model came about"
    )
    finetune: tuple[str, ...] = option(
        (), "folders of its fine-tunings, such as runs/mine/finetune-best; their scores are shown"
    )
    model: str = option(
        "", "folder or hub id that is measured; empty = the one that those were fine-tuned from"
    )
    trust_remote_code: bool = option(False, "run model code that comes with `model`")

    def validate(self) -> Iterator[str]:
        """Yields the problems of this section, as ``field: what is wrong``."""
        if not self.name.strip():
            yield "name: must not be empty"
        if not self.finetune and not self.model:
            yield "model: give a folder or hub id, or name fine-tunings in `finetune`"


@dataclass(frozen=True, kw_only=True, slots=True)
class CompareSection:
    """The comparison table: scores as they were recorded, cost and latency as measured here."""

    models: tuple[ComparedModelSection, ...] = option((), "rows of the table, in order")
    latency: bool = option(True, "measure latency: all forms of all models take turns")
    onnx: bool = option(True, "also measure as ONNX, fp32 and int8 (the extra `onnx`)")
    length: int = option(128, "tokens of a row, for FLOPs and latency", within="[8, 65536]")
    rows: int = option(1, "rows per timed call", within="[1, 4096]")
    rounds: int = option(15, "turns of each form in the timing", within="[1, 10000]")
    threads: int = option(1, "CPU threads of the timed forms", within="[1, 1024]")

    def validate(self) -> Iterator[str]:
        """Yields the problems of this section, as ``field: what is wrong``."""
        names = [model.name for model in self.models]
        if len(set(names)) != len(names):
            yield f"models: names must be distinct, got {names}"
