"""A plan: every figure of a run that can be known before it starts, and how it is shown."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from magicbert.planning.budget import Hours, PathFlops, SaveTime, StepFlops
from magicbert.planning.memory import RankMemory

UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")
MEANINGS = {
    "weights": "in the training precision",
    "teacher": "its weights, fp32, whole on every rank",
    "masters": "fp32 copies that the optimizer steps",
    "moments": "of the optimizer, once every operator was sampled",
    "gradients": "of the largest path, at the end of a step's last backward",
    "activations": "kept for the backward by the path that keeps most",
    "temporaries": "beside them, for a moment",
    "buffers": "messages between ranks",
    "host": "masters and moments, and what travels there; in host memory",
    "peak": "most at one time on the device; not all parts meet",
}

ONLY_WHERE_ANY = ("teacher", "host")


@dataclass(frozen=True)
class Plan:
    """What a run will take.

    Attributes:
        headline: what is trained on what.
        num_ranks: of all hosts.
        parameters: of the whole supernet.
        steps: of the optimizer.
        tokens: positions of all steps, padding included.
        memory: of one rank.
        path_flops: of one row's forward.
        step_flops: of one optimizer step.
        run_flops: of all steps, on mean paths.
        checkpoint: size and time.
        tokens_per_second: of all ranks; 0 = not known.
        rate_source: where that figure is from.
        hours: of the run; ``None`` = no rate is known.
        warnings: what deserves a second look.
    """

    headline: str
    num_ranks: int
    parameters: int
    steps: int
    tokens: int
    memory: RankMemory
    path_flops: PathFlops
    step_flops: StepFlops
    run_flops: float
    checkpoint: SaveTime
    tokens_per_second: float
    rate_source: str
    hours: Hours | None
    warnings: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """Returns the plan as JSON data: bytes, FLOPs, seconds and hours, unrounded."""
        return dataclasses.asdict(self)

    def as_text(self) -> str:
        """Returns the plan as a table for people."""
        lines = [self.headline, "", "memory of one rank"]
        lines += memory_lines(self.memory, MEANINGS)
        lines += ["", "work", *(f"  {name:<12} {text}" for name, text in self._work())]
        return "\n".join([*lines, *(f"warning: {text}" for text in self.warnings)])

    def _work(self) -> Iterator[tuple[str, str]]:
        path, step = self.path_flops, self.step_flops
        yield "steps", f"{self.steps:,}"
        yield "tokens", f"{self.tokens:.3g}"
        yield "path", f"{path.mean:.3g} FLOPs a row forward (mean), {path.largest:.3g} (largest)"
        anchor = f", {step.anchor:.3g} of them the anchor's forward" if step.anchor else ""
        teacher = f", {step.teacher:.3g} of them the teacher's forward" if step.teacher else ""
        figures = f"{step.mean:.3g} FLOPs (mean){anchor}{teacher}"
        yield "step", f"{figures}, {step.largest:.3g} (largest)"
        yield "run", f"{self.run_flops:.3g} FLOPs"
        saved = self.checkpoint
        yield "checkpoint", f"{show_bytes(saved.num_bytes)}, {saved.seconds:.1f} s to save"
        if self.hours is None:
            yield "hours", "give --plan.tokens_per_second, as a short run logs it"
            return
        hours = self.hours
        yield "rate", f"{self.tokens_per_second:,.0f} tokens/s ({self.rate_source})"
        yield (
            "hours",
            f"{hours.wall:,.1f}; {hours.devices:,.0f} of all ranks; "
            f"{hours.flops_per_second / 1e12:.3g} TFLOP/s on each",
        )


def memory_lines(memory: Any, meanings: Mapping[str, str]) -> Iterator[str]:
    """Yields a line for every part of a memory; of some only where there is any."""
    for name, meaning in meanings.items():
        value = getattr(memory, name)
        if value or name not in ONLY_WHERE_ANY:
            yield f"  {name:<12} {show_bytes(value):>10}   {meaning}"


def show_bytes(count: int) -> str:
    """Returns a number of bytes in the unit that fits."""
    value, unit = float(count), 0
    while value >= 1024 and unit < len(UNITS) - 1:
        value, unit = value / 1024, unit + 1
    return f"{value:.0f} B" if unit == 0 else f"{value:.2f} {UNITS[unit]}"
