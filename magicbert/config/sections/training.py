"""Paths, alignment, optimizer and steps."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from magicbert.config.fields import option


@dataclass(frozen=True, kw_only=True, slots=True)
class SamplingSection:
    """Which path is trained at each step."""

    method: Literal["uniform", "magic-t", "strict-fair"] = option(
        "uniform",
        "'uniform' (SPOS), 'magic-t' (consecutive paths differ in num_changes layers), or "
        "'strict-fair' (each layer takes each of its C candidates once in every C steps)",
    )
    num_changes: int = option(
        1, "MAGIC-T's k: operators changed from one step to the next", within="[1, 1000]"
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class AlignmentSection:
    """MAGIC-A: block outputs are drawn to those of an anchor path."""

    enabled: bool = option(False, "add the alignment loss (MAGIC-A; with magic-t: MAGIC-AT)")
    weight: float = option(0.5, "lambda, the weight of the alignment loss", within="[0, 1e6]")
    num_blocks: int = option(
        4, "aligned points, at block ends; 0 = after every layer", within="[0, 1000]"
    )
    form: Literal["mean", "sum"] = option(
        "mean", "mean over the aligned points, or their sum as printed in the paper"
    )
    delay_steps: int = option(
        0,
        "first steps trained without alignment: outputs that hardly depend on the input are easy "
        "to align, and a narrow supernet can stay with them",
        within="[0, 1e9]",
    )
    anchor: Literal["best", "top-percent", "children"] = option(
        "best",
        "aligned to the best path so far, to the one at top_percent of a sampled pool, or (the "
        "aligned supernet of MAGIC's analysis) to the mean of random children, drawn at each step",
    )
    every: int = option(
        100,
        "steps between two comparisons of anchor and sample; 1 = the paper's",
        within="[1, 1e9]",
    )
    num_dev_batches: int = option(5, "dev batches that score anchor and sample", within="[1, 1e6]")
    top_percent: float = option(
        30.0, "for 'top-percent': p, the anchor's rank in percent", within="[0, 100]"
    )
    tolerance: float = option(
        10.0, "for 'top-percent': r, kept while within (p +- r) percent", within="[0, 100]"
    )
    num_children: int = option(
        0,
        "for 'children': paths whose mean is aligned to, the trained one among them; 0 = as many "
        "as a layer has candidates",
        within="[0, 1000]",
    )
    pool_size: int = option(
        50, "for 'top-percent': sampled paths that are ranked", within="[1, 1e6]"
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class OptimizerSection:
    """The update rule and its warm-up schedule."""

    name: Literal["adamw", "lamb"] = option("adamw", "'adamw', or 'lamb' for very large batches")
    policy: Literal["path-sparse", "shared-step", "zero-gradient"] = option(
        "path-sparse",
        "operators that were not sampled: 'path-sparse' leaves them alone; to compare, "
        "'shared-step' counts their steps all the same and 'zero-gradient' moves them by momentum "
        "and decay",
    )
    learning_rate: float = option(5e-4, "peak learning rate", within="(0, 10]")
    beta1: float = option(0.9, "decay of the first moment", within="[0, 1)")
    beta2: float = option(0.98, "decay of the second moment", within="[0, 1)")
    epsilon: float = option(1e-6, "added to the root of the second moment", within="[1e-16, 1]")
    weight_decay: float = option(
        0.01, "decoupled decay; norms and biases are left out", within="[0, 10]"
    )
    clip_norm: float = option(
        1.0, "largest norm of the gradient; 0 = no clipping", within="[0, 1e6]"
    )
    warmup_steps: int = option(10000, "steps of linear warm-up", within="[0, 1e9]")
    schedule: Literal["linear", "cosine", "constant"] = option("linear", "decay after warm-up")


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingSection:
    """Steps, batches, precision, and what is written when."""

    seed: int = option(0, "seed of everything random in this stage", within="[0, 4294967295]")
    num_steps: int = option(62500, "optimizer steps", within="[1, 1e9]")
    rows_per_step: int = option(
        1024, "rows of one optimizer step, over all ranks", within="[1, 1e8]"
    )
    rows_per_micro_batch: int = option(32, "rows of one forward on one rank", within="[1, 1e6]")
    precision: Literal["fp32", "bf16", "fp16"] = option(
        "bf16", "number format of forward and backward"
    )
    zero_stage: Literal[0, 1, 2, 3] = option(1, "DeepSpeed ZeRO stage")
    offload_optimizer: bool = option(
        False, "keep fp32 masters and AdamW's moments in host memory (not at ZeRO stage 0)"
    )
    max_live_parameters: int = option(
        1_000_000_000,
        "ZeRO stage 3: parameters that stay gathered through a step; a path of more is gathered "
        "again for its backward",
        within="[0, 1e13]",
    )
    backend: Literal["auto", "triton", "torch"] = option("auto", "which kernels to use")
    compile: bool = option(
        False, "run the operators as compiled code (torch.compile); the first steps take longer"
    )
    cuda_graphs: bool = option(
        False,
        "launch each operator's kernels as CUDA graphs: for small batches on a GPU, up to ZeRO "
        "stage 2",
    )
    log_every: int = option(50, "steps between two log lines", within="[1, 1e9]")
    evaluate_every: int = option(
        1000, "steps between two evaluations on the valid split", within="[1, 1e9]"
    )
    num_eval_batches: int = option(
        50, "valid micro-batches of one evaluation, over all ranks", within="[1, 1e6]"
    )
    num_eval_paths: int = option(
        4, "fixed random paths that an evaluation of a supernet averages", within="[1, 1e6]"
    )
    checkpoint_every: int = option(1000, "steps between two checkpoints", within="[1, 1e9]")
    keep_checkpoints: int = option(2, "checkpoints kept", within="[1, 1e6]")
    max_minutes: float = option(
        0.0, "stop with a checkpoint after so many minutes; 0 = no limit", within="[0, 1e7]"
    )
    max_skips_in_a_row: int = option(
        20, "stop after so many steps in a row without a finite gradient", within="[1, 1e6]"
    )
    max_skips_per_1000: int = option(
        100,
        "stop after so many of the last 1000 steps without a finite gradient",
        within="[1, 1000]",
    )
    on_spike: Literal["log", "skip", "stop"] = option(
        "log", "what to do with a step whose loss is a spike; 'skip' costs one small all-reduce"
    )
    spike_factor: float = option(
        20.0,
        "a spike is above the median of recent losses by so many median deviations",
        within="[1, 1e6]",
    )
    check_replicas_every: int = option(
        1000,
        "steps between two comparisons of all ranks' weights (stages 0 to 2); 0 = never",
        within="[0, 1e9]",
    )

    probe_interference_every: int = option(
        0,
        "steps between two measurements of the gradient cosine of consecutive paths; 0 = never; "
        "each costs two forwards and backwards of one micro-batch (not at ZeRO stage 3)",
        within="[0, 1e9]",
    )

    def validate(self) -> Iterator[str]:
        """Yields the problems of this section, as ``field: what is wrong``."""
        if self.probe_interference_every and self.zero_stage == 3:
            yield (
                "probe_interference_every: needs the weights of two whole paths, which ZeRO stage "
                "3 does not keep; take 0, or another stage"
            )
        if self.offload_optimizer and self.zero_stage == 0:
            yield "offload_optimizer: ZeRO stage 0 has nothing to offload; take another stage"
        if self.cuda_graphs and self.zero_stage == 3:
            yield "cuda_graphs: not at ZeRO stage 3, whose weights move; take another stage"
        if self.cuda_graphs and self.compile:
            yield "cuda_graphs: not together with compile; take one of them"
