"""The plan of `compress supernet`: blocks that are trained one after the other on each rank."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from magicbert.planning.budget import BYTES_PER_SAVED_VALUE, FORWARDS_OF_A_STEP, Hours
from magicbert.planning.plan import memory_lines, show_bytes

FP32_BYTES = 4
MEANINGS = {
    "weights": "of the largest block, fp32",
    "teacher": "its weights, fp32",
    "moments": "of AdamW, once every operator was sampled",
    "gradients": "of the largest path, fp32",
    "activations": "kept for the backward by the path that keeps most, its anchor and its casts",
    "teaching": "the teacher's states and what its layers need; over before the block begins",
    "peak": "most at one time on the device; not all parts meet",
}


@dataclass(frozen=True)
class BlockMemory:
    """Bytes of one rank while it trains the block that needs most.

    Attributes:
        weights: of the block.
        teacher: weights of the teacher.
        moments: of the optimizer.
        gradients: of the largest path.
        activations: kept by the block between forward and backward.
        teaching: what the teacher's forward takes.
        peak: most that is held at one time.
    """

    weights: int
    teacher: int
    moments: int
    gradients: int
    activations: int
    teaching: int
    peak: int

    @classmethod
    def of(
        cls,
        *,
        block: int,
        path: int,
        teacher: int,
        activations: int,
        teaching: int,
        accumulates: bool,
    ) -> BlockMemory:
        """Adds the parts up.

        Args:
            block: values of the block.
            path: values of its largest path.
            teacher: values of the teacher.
            activations: bytes kept by the block's forward.
            teaching: bytes of the teacher's forward.
            accumulates: a step has several micro-batches, whose gradients add up.
        """
        weights, gradients = block * FP32_BYTES, path * FP32_BYTES
        held = weights + teacher * FP32_BYTES + 2 * weights
        begin = max(activations, teaching) + (gradients if accumulates else 0)
        return cls(
            weights=weights,
            teacher=teacher * FP32_BYTES,
            moments=2 * weights,
            gradients=gradients,
            activations=activations,
            teaching=teaching,
            # Activations go as gradients come: the most is held where the backward begins or ends.
            peak=held + max(begin, gradients),
        )


@dataclass(frozen=True)
class BlockFlops:
    """FLOPs of one block's training.

    Attributes:
        path: of one row's forward along the mean path, maps at the block's ends included.
        teacher: of one row's forward through the teacher up to the block's end.
        step: of one optimizer step: forward and backward of the path, anchor, teacher.
        training: of all steps.
        scoring: of the dev rows that decide what is removed, were every path run on its own;
            paths that begin alike share what they compute, so this is the most.
    """

    path: float
    teacher: float
    step: float
    training: float
    scoring: float

    @classmethod
    def of(
        cls,
        path: float,
        teacher: float,
        *,
        rows: int,
        steps: int,
        num_references: int,
        delay_steps: int = 0,
        scored_rows: int,
        taught_rows: int,
    ) -> BlockFlops:
        """Adds the parts up.

        Args:
            path: of one row's forward.
            teacher: of one row's forward.
            rows: of one step.
            steps: of the block.
            num_references: forwards of an anchor in each aligned step.
            delay_steps: first steps without alignment.
            scored_rows: dev rows that paths of the block are run on.
            taught_rows: dev rows that the teacher is run on for them.
        """
        step = rows * (path * (FORWARDS_OF_A_STEP + num_references) + teacher)
        scoring = scored_rows * path + taught_rows * teacher
        unaligned = rows * path * num_references * min(delay_steps, steps)
        return cls(path, teacher, step, step * steps - unaligned, scoring)

    @property
    def total(self) -> float:
        """FLOPs of the block."""
        return self.training + self.scoring


@dataclass(frozen=True)
class BlocksPlan:
    """What the training of all blocks will take.

    Attributes:
        headline: what is trained on what.
        num_ranks: that are used; each trains blocks of its own.
        parameters: of all blocks.
        block_parameters: of each block.
        paths: of a block that are in a bin.
        steps: of each block, until its bins are shrunk or all steps are made.
        most_steps: that a block may make.
        scored_paths: of each block, over all rounds.
        tokens: positions of all steps of all blocks.
        memory: of one rank.
        block_flops: of each block.
        run_flops: of all blocks.
        checkpoint_bytes: of each block, on disk.
        tokens_per_second: of all ranks that are used, in steps; 0 = not known.
        rate_source: where that figure is from.
        hours: ``None`` = no rate is known.
    """

    headline: str
    num_ranks: int
    parameters: int
    block_parameters: tuple[int, ...]
    paths: int
    steps: int
    most_steps: int
    scored_paths: int
    tokens: int
    memory: BlockMemory
    block_flops: tuple[BlockFlops, ...]
    run_flops: float
    checkpoint_bytes: tuple[int, ...]
    tokens_per_second: float
    rate_source: str
    hours: Hours | None

    def as_json(self) -> dict[str, Any]:
        """Returns the plan as JSON data: bytes, FLOPs and hours, unrounded."""
        return dataclasses.asdict(self)

    def as_text(self) -> str:
        """Returns the plan as a table for people."""
        lines = [self.headline, "", "memory of one rank", *memory_lines(self.memory, MEANINGS)]
        lines += ["", "work", *(f"  {name:<12} {text}" for name, text in self._work())]
        return "\n".join(lines)

    def _work(self) -> Iterator[tuple[str, str]]:
        counts = ", ".join(f"{count / 1e6:,.1f}M" for count in self.block_parameters)
        yield "blocks", f"{counts} parameters; {self.paths:,} paths of each are in a bin"
        full = " (bins are shrunk before the last)" if self.steps < self.most_steps else ""
        yield "steps", f"{self.steps:,} of each block{full}"
        yield "tokens", f"{self.tokens:.3g}"
        for number, flops in enumerate(self.block_flops, start=1):
            yield (
                f"block {number}",
                f"{flops.step:.3g} FLOPs a step (mean path {flops.path:.3g} a row forward, teacher "
                f"{flops.teacher:.3g}); {flops.total:.3g} in all",
            )
        scoring = sum(flops.scoring for flops in self.block_flops)
        yield "shrinking", f"{self.scored_paths:,} paths scored of each block, {scoring:.3g} FLOPs"
        yield "run", f"{self.run_flops:.3g} FLOPs"
        yield "disk", f"{show_bytes(sum(self.checkpoint_bytes))} for the states of all blocks"
        if self.hours is None:
            yield "hours", "give --plan.tokens_per_second, or plan again once a block has begun"
            return
        yield "rate", f"{self.tokens_per_second:,.0f} tokens/s ({self.rate_source})"
        yield "hours", f"{self.hours.wall:,.1f}; {self.hours.devices:,.0f} of all ranks"


def hours_of_blocks(
    blocks: Sequence[BlockFlops],
    tokens_per_block: int,
    num_ranks: int,
    tokens_per_second: float,
) -> Hours:
    """Returns the time of all blocks at a rate.

    Block n is trained by rank (n - 1) mod ranks. A block's time follows its FLOPs, scoring
    included; the rate is that of the mean block's steps.

    Args:
        blocks: of each block.
        tokens_per_block: positions of all steps of one block.
        num_ranks: that train, no more than there are blocks.
        tokens_per_second: of all of these ranks.
    """
    mean = sum(flops.training for flops in blocks) / len(blocks)
    speed = mean / tokens_per_block * tokens_per_second / num_ranks
    seconds = [
        sum(one.total for one in blocks[rank::num_ranks]) / speed for rank in range(num_ranks)
    ]
    return Hours(max(seconds) / 3600, max(seconds) * num_ranks / 3600, speed)


def saved_bytes(values: int) -> int:
    """Returns the size of a block's state: weights and both moments, in fp32."""
    return values * BYTES_PER_SAVED_VALUE


@dataclass(frozen=True)
class SelectPlan:
    """What a choice from the blocks' tables will take.

    Attributes:
        headline: what is chosen from what.
        models: that the tables describe.
        is_known: whether the tables are there; else the number is the most there can be.
        evaluated: models that are run on dev rows, if so many keep the limits.
        rows: dev rows that each of them is run on.
        flops: of these runs on models of mean paths, each run on its own; in truth beginnings are
            shared.
        weights: bytes of the teacher and of all blocks, on one device.
        peak: bytes at one time.
    """

    headline: str
    models: int
    is_known: bool
    evaluated: int
    rows: int
    flops: float
    weights: int
    peak: int

    def as_json(self) -> dict[str, Any]:
        """Returns the plan as JSON data, unrounded."""
        return dataclasses.asdict(self)

    def as_text(self) -> str:
        """Returns the plan as a table for people."""
        bound = "" if self.is_known else " at most: the blocks are not trained yet"
        rows: Mapping[str, str] = {
            "models": f"{self.models:,} in the tables{bound}",
            "evaluated": f"{self.evaluated:,} on {self.rows:,} rows each",
            "run": f"{self.flops:.3g} FLOPs (mean paths, nothing shared)",
            "memory": f"{show_bytes(self.peak)}, {show_bytes(self.weights)} of it weights",
        }
        return "\n".join([self.headline, "", *(f"  {k:<12} {v}" for k, v in rows.items())])
