"""Compression: the space, the blocks' training, the choice from tables, and distillation."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from magicbert.config.fields import option


@dataclass(frozen=True, kw_only=True, slots=True)
class BlocksSection:
    """NAS-BERT's space: blocks of layers, one width per block (NAS-BERT 3.1)."""

    num_blocks: int = option(4, "blocks, each trained on its own", within="[1, 100]")
    layers_per_block: int = option(6, "most operators of a block", within="[1, 12]")
    widths: tuple[int, ...] = option(
        (128, 192, 256, 384, 512), "hidden sizes that a block may have", within="[4, 65536]"
    )
    head_size: int = option(
        64, "width of one attention head; `mha` has width / head_size heads", within="[1, 65536]"
    )
    operators: tuple[str, ...] = option(
        ("mha", "ffn", "conv3", "conv5", "conv7"),
        "what a layer may hold, beside the identity; `mha` takes its heads from the width",
    )

    def validate(self) -> Iterator[str]:
        """Yields the problems of this section, as ``field: what is wrong``."""
        for name in ("widths", "operators"):
            values = getattr(self, name)
            if not values or len(set(values)) != len(values):
                yield f"{name}: must be distinct and at least one, got {list(values)}"
        if "skip" in self.operators:
            yield "operators: 'skip' is always there; leave it out"
        for width in self.widths:
            if "mha" in self.operators and width % max(width // max(self.head_size, 1), 1):
                yield f"head_size: width {width} is not made of heads of {self.head_size}"


@dataclass(frozen=True, kw_only=True, slots=True)
class BlockTrainingSection:
    """Training of the blocks against the teacher, and the shrinking of their paths."""

    seed: int = option(0, "seed of everything random in this stage", within="[0, 4294967295]")
    num_steps: int = option(
        62500, "most optimizer steps of a block; fewer if its bins are shrunk", within="[1, 1e9]"
    )
    rows_per_step: int = option(1024, "rows of one optimizer step", within="[1, 1e8]")
    rows_per_micro_batch: int = option(32, "rows of one forward", within="[1, 1e6]")
    precision: Literal["fp32", "bf16"] = option(
        "bf16", "number format of forward and backward; weights are fp32"
    )
    backend: Literal["auto", "triton", "torch"] = option("auto", "which kernels to use")
    dropout: float = option(0.1, "dropout of operator outputs", within="[0, 1)")
    attention_dropout: float = option(0.1, "dropout of the attention weights", within="[0, 1)")
    initializer_range: float = option(
        0.02, "standard deviation of the initial weights", within="(0, 10]"
    )
    num_bins: int = option(10, "bins of size and latency (B)", within="[1, 1000]")
    bin_by: Literal["size-and-flops", "size-and-latency"] = option(
        "size-and-flops",
        "what puts paths into bins beside parameters: FLOPs, or latency measured on this machine",
    )
    warmup_rounds: int = option(3, "rounds before the first shrinking", within="[0, 1e6]")
    steps_per_round: int = option(
        3000, "steps of a round, after which bins are halved (an epoch)", within="[1, 1e9]"
    )
    samples_per_bin: int = option(
        2000, "paths of a bin that are scored in a round (E)", within="[2, 1e7]"
    )
    keep_per_bin: int = option(
        10, "paths of a bin at which its shrinking ends (m)", within="[1, 1e6]"
    )
    num_dev_batches: int = option(5, "dev micro-batches that score a path", within="[1, 1e6]")
    log_every: int = option(50, "steps between two log lines", within="[1, 1e9]")
    checkpoint_every: int = option(1000, "steps between two checkpoints", within="[1, 1e9]")
    max_minutes: float = option(
        0.0, "stop with a checkpoint after so many minutes; 0 = no limit", within="[0, 1e7]"
    )

    def validate(self) -> Iterator[str]:
        """Yields the problems of this section, as ``field: what is wrong``."""
        if self.rows_per_step % max(self.rows_per_micro_batch, 1):
            yield (
                f"rows_per_step: {self.rows_per_step} is not a multiple of "
                f"rows_per_micro_batch {self.rows_per_micro_batch}"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class SelectSection:
    """The choice of whole models from the blocks' tables (NAS-BERT 3.3)."""

    max_parameters: int = option(
        0, "most parameters of the exported encoder; 0 = no limit", within="[0, 1e12]"
    )
    min_parameters: int = option(0, "fewest parameters; 0 = no limit", within="[0, 1e12]")
    max_flops: float = option(
        0.0, "most forward FLOPs of one row of the prepared length; 0 = none", within="[0, 1e18]"
    )
    max_latency_ms: float = option(
        0.0,
        "longest latency of a model with a classification head, measured as `latency` says; 0 = "
        "no limit",
        within="[0, 1e9]",
    )
    embedding_size: int = option(
        0, "width of the student's tables; 0 = that of its first block", within="[0, 65536]"
    )
    num_candidates: int = option(
        100, "models with the least sum of block losses that are evaluated (T)", within="[1, 1e5]"
    )
    num_dev_batches: int = option(20, "dev batches that rank these models", within="[1, 1e6]")
    rows_per_batch: int = option(32, "rows of one dev batch", within="[1, 1e6]")
    num_results: int = option(10, "architectures written", within="[1, 1e6]")

    def validate(self) -> Iterator[str]:
        """Yields the problems of this section, as ``field: what is wrong``."""
        if self.max_parameters and self.min_parameters > self.max_parameters:
            yield (
                f"min_parameters: {self.min_parameters} is above "
                f"max_parameters {self.max_parameters}"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class DistillationSection:
    """A teacher beside the labels when a model is retrained (NAS-BERT 3.4)."""

    teacher: str = option(
        "", "exported folder, or the folder `model` of a retraining; empty = labels alone"
    )
    weight: float = option(0.5, "share of the teacher in the loss (lambda)", within="[0, 1]")
    temperature: float = option(1.0, "what the logits of both are divided by", within="(0, 1000]")
    hidden_weight: float = option(
        0.0, "weight of the squared error of hidden states; 0 = off", within="[0, 1e6]"
    )
    hidden_points: int = option(
        4,
        "hidden states that are compared, at equal shares of both depths; the last is that of the "
        "last layers",
        within="[1, 1000]",
    )
    attention_weight: float = option(
        0.0,
        "weight of the divergence of self-attention relations, of the last attention layers "
        "(MiniLMv2); 0 = off",
        within="[0, 1e6]",
    )
    relation_heads: int = option(
        16, "heads of a relation; must divide both widths", within="[1, 65536]"
    )

    def validate(self) -> Iterator[str]:
        """Yields the problems of this section, as ``field: what is wrong``."""
        for name in ("hidden_weight", "attention_weight"):
            if getattr(self, name) and not self.teacher:
                yield f"{name}: needs a teacher; set distillation.teacher"
