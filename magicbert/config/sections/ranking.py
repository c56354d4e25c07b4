"""The study of rank fidelity: which models are trained alone, and which supernets rank them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from magicbert.config.fields import option, section
from magicbert.config.sections.data import MaskingSection
from magicbert.config.sections.model import ModelSection, SpaceSection
from magicbert.config.sections.training import AlignmentSection, OptimizerSection, SamplingSection

ALIGNMENT, SAMPLING = AlignmentSection(), SamplingSection()


@dataclass(frozen=True, kw_only=True, slots=True)
class StudiedSupernetSection:
    """One method with its settings, trained with several seeds."""

    method: Literal["spos", "strict-fair", "magic-t", "magic-a", "magic-at"] = option(
        "spos", "how the supernet is trained; 'spos' and 'magic-a' draw paths uniformly"
    )
    settings: str = option(
        "default", "name of these settings in rows and tables, such as 'k=6' or 'equal-flops'"
    )
    num_seeds: int = option(3, "supernets trained, with seeds 0, 1, ...", within="[1, 1000]")
    num_steps: int = option(0, "optimizer steps; 0 = ranking.supernet_steps", within="[0, 1e9]")
    equal_flops: bool = option(
        False,
        "train fewer steps, so that anchor and scores included it takes the FLOPs that num_steps "
        "steps of 'spos' take",
    )
    learning_rate: float = option(
        0.0, "peak learning rate; 0 = ranking.supernet_learning_rate", within="[0, 10]"
    )
    warmup_steps: int = option(
        0, "steps of linear warm-up; 0 = ranking.supernet_warmup_steps", within="[0, 1e9]"
    )
    num_changes: int = option(SAMPLING.num_changes, "k of magic-t and magic-at", within="[1, 1000]")
    weight: float = option(ALIGNMENT.weight, "lambda of magic-a and magic-at", within="[0, 1e6]")
    num_blocks: int = option(
        ALIGNMENT.num_blocks, "aligned points; 0 = after every layer", within="[0, 1000]"
    )
    alignment_delay: int = option(
        ALIGNMENT.delay_steps, "first steps of magic-a and magic-at without it", within="[0, 1e9]"
    )
    anchor: Literal["best", "top-percent"] = option(
        "best", "the best path so far, or the one at top_percent of a sampled pool"
    )
    anchor_every: int = option(
        ALIGNMENT.every, "steps between two comparisons of the anchor", within="[1, 1e9]"
    )
    anchor_batches: int = option(
        ALIGNMENT.num_dev_batches,
        "dev batches of such a comparison, of rows_per_micro_batch rows",
        within="[1, 1e6]",
    )
    top_percent: float = option(ALIGNMENT.top_percent, "p of 'top-percent'", within="[0, 100]")
    tolerance: float = option(ALIGNMENT.tolerance, "r of 'top-percent'", within="[0, 100]")
    pool_size: int = option(
        ALIGNMENT.pool_size, "paths ranked for 'top-percent'", within="[1, 1e6]"
    )

    def validate(self) -> Iterator[str]:
        """Yields the problems of this section, as ``field: what is wrong``."""
        if not self.settings.strip():
            yield "settings: must not be empty"


@dataclass(frozen=True, kw_only=True, slots=True)
class DownstreamSection:
    """Fine-tuning of models that were trained alone; no tasks = none."""

    tasks: tuple[str, ...] = option((), "GLUE tasks, such as [sst2] or [mnli]")
    data: str = option("", "folder of GLUE TSV files; empty = $MAGICBERT_DATA/glue")
    num_architectures: int = option(
        60, "architectures that are fine-tuned, drawn once from the table", within="[1, 1e6]"
    )
    num_seeds: int = option(
        1, "models of each that are fine-tuned, those of seeds 0, 1, ...", within="[1, 1000]"
    )
    budget: Literal["short", "long"] = option("short", "which models are fine-tuned")
    learning_rate: float = option(1e-4, "peak learning rate", within="(0, 10]")
    num_epochs: float = option(1.0, "passes over the training rows", within="(0, 1e5]")
    batch_size: int = option(32, "rows per step", within="[1, 1e6]")
    max_length: int = option(64, "tokens per example at most", within="[8, 65536]")
    max_train_rows: int = option(0, "train on so many rows; 0 = all", within="[0, 1e12]")


@dataclass(frozen=True, kw_only=True, slots=True)
class RankingSection:
    """Setting of `analyze ranking`: a table of models trained alone, and supernets that rank it."""

    space: SpaceSection = section(SpaceSection)
    model: ModelSection = section(ModelSection)
    masking: MaskingSection = section(MaskingSection)
    optimizer: OptimizerSection = section(OptimizerSection)
    table: Literal["uniform", "periodic", "stretched"] = option(
        "uniform",
        "architectures of the table: 'uniform' draws num_architectures; 'periodic' takes every "
        "pattern of `period` layers, repeated to the whole depth; 'stretched' takes every such "
        "pattern with each of its operators in a run of layers",
    )
    num_architectures: int = option(60, "size of the 'uniform' table", within="[2, 1e6]")
    period: int = option(4, "layers of a pattern of the two complete tables", within="[1, 1000]")
    table_seed: int = option(0, "seed of every draw of architectures", within="[0, 4294967295]")
    num_seeds: int = option(2, "models trained alone of each architecture", within="[1, 1000]")
    short_steps: int = option(62500, "optimizer steps of each of them", within="[1, 1e9]")
    long_steps: int = option(
        0, "steps of the second, larger budget; 0 = there is none", within="[0, 1e9]"
    )
    num_long: int = option(
        32, "architectures also trained with the larger budget", within="[1, 1e6]"
    )
    supernet_steps: int = option(62500, "optimizer steps of a supernet", within="[1, 1e9]")
    supernet_learning_rate: float = option(
        0.0,
        "peak learning rate of supernets; 0 = ranking.optimizer.learning_rate",
        within="[0, 10]",
    )
    supernet_warmup_steps: int = option(
        0, "warm-up of supernets; 0 = ranking.optimizer.warmup_steps", within="[0, 1e9]"
    )
    supernets: tuple[StudiedSupernetSection, ...] = option(
        (
            StudiedSupernetSection(),
            StudiedSupernetSection(method="magic-t"),
            StudiedSupernetSection(method="magic-a"),
            StudiedSupernetSection(method="magic-at"),
        ),
        "supernets that rank the table; a list of sections",
    )
    downstream: DownstreamSection = section(DownstreamSection)
    rows_per_step: int = option(256, "rows of one optimizer step", within="[1, 1e8]")
    rows_per_micro_batch: int = option(32, "rows of one forward in training", within="[1, 1e6]")
    rows_per_dev_batch: int = option(64, "rows of one forward in scoring", within="[1, 1e6]")
    num_dev_batches: int = option(
        25, "fixed dev batches behind every loss and every score", within="[1, 1e6]"
    )
    backend: Literal["auto", "triton", "torch"] = option("auto", "which kernels to use")
    num_curve_points: int = option(
        8, "points of each loss curve, spread evenly over the steps", within="[1, 10000]"
    )
    num_workers: int = option(
        0, "trainings side by side, one process each; 0 = one per core", within="[0, 4096]"
    )
    models_at_once: int = option(
        1,
        "models trained alone, or supernets, whose steps a worker makes together, each on its own "
        "rows; more than 1 needs model.dropout 0 and model.attention_dropout 0",
        within="[1, 4096]",
    )
    max_minutes: float = option(
        0.0, "stop after so many minutes, keeping all that was done; 0 = no limit",
        within="[0, 1e7]",
    )  # fmt: skip

    def validate(self) -> Iterator[str]:
        """Yields the problems of this section, as ``field: what is wrong``."""
        if self.rows_per_step % max(self.rows_per_micro_batch, 1):
            yield (
                f"rows_per_step: {self.rows_per_step} is not a multiple of rows_per_micro_batch "
                f"{self.rows_per_micro_batch}"
            )
        if self.models_at_once > 1 and (self.model.dropout or self.model.attention_dropout):
            yield (
                f"models_at_once: {self.models_at_once} models side by side need model.dropout 0 "
                "and model.attention_dropout 0; else take models_at_once 1"
            )
        if (self.optimizer.name, self.optimizer.policy) != ("adamw", "path-sparse"):
            yield "optimizer: small trainings know name adamw with policy path-sparse alone"
        if self.downstream.tasks and self.downstream.budget == "long" and not self.long_steps:
            yield "downstream.budget: 'long' needs long_steps"
        names = [(entry.method, entry.settings) for entry in self.supernets]
        for name in sorted({name for name in names if names.count(name) > 1}):
            yield f"supernets: {name[0]} with settings {name[1]!r} stands there twice"
