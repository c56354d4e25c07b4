"""Options of ``--plan``: what is not in a run's configuration. They are no part of a run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from magicbert.config.fields import option, section


@dataclass(frozen=True, kw_only=True, slots=True)
class PlanSection:
    """What --plan takes as given; 0 = found out."""

    format: Literal["table", "json"] = option("table", "what is printed; --plan=json is short")
    num_ranks: int = option(
        0, "ranks of all hosts; 0 = those of launch.hostfile or launch.num_ranks", within="[0, 1e6]"
    )
    device: Literal["auto", "cpu", "cuda"] = option(
        "auto", "whose kernels count for activations; 'auto' = this machine's"
    )
    vocab_size: int = option(0, "tokens; 0 = of the prepared data", within="[0, 1e8]")
    length: int = option(
        0, "tokens per row; 0 = of the prepared data, else model.max_length", within="[0, 65536]"
    )
    tokens_per_second: float = option(
        0.0, "speed of all ranks; 0 = that of this run's last start, if any", within="[0, 1e12]"
    )
    teacher_layers: int = option(
        0,
        "Transformer layers of a teacher that is not there yet; 0 = of its folder",
        within="[0, 1000]",
    )
    teacher_width: int = option(
        0, "its hidden size, in heads of 64; 0 = of its folder", within="[0, 65536]"
    )
    disk_megabytes_per_second: float = option(
        0.0, "speed of the disk for checkpoints; 0 = measured", within="[0, 1e9]"
    )

    def validate(self) -> Iterator[str]:
        """Yields the problems of this section, as ``field: what is wrong``."""
        if self.length and self.length < 8:
            yield f"length: must be at least 8, got {self.length}"
        if bool(self.teacher_layers) != bool(self.teacher_width):
            yield "teacher_layers: is given together with teacher_width, or neither"


@dataclass(frozen=True, kw_only=True, slots=True)
class PlanConfig:
    """Computes what a run will take, and starts nothing."""

    plan: PlanSection = section(PlanSection)

    def validate(self) -> Iterator[str]:
        """Yields problems between sections."""
        return iter(())
