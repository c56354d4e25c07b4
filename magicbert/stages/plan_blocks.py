"""``compress supernet --plan``: what the blocks' training will take."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from statistics import median

import numpy as np

from magicbert.bert.cost import num_parameters
from magicbert.bert.modeling.configuration_magicbert import MagicBertConfig
from magicbert.bert.teacher import Teacher
from magicbert.compression.bins import PoolCosts
from magicbert.compression.block_candidates import Costs, block_candidates, block_costs, cost_table
from magicbert.compression.shrinking import Candidates
from magicbert.compression.shrinking_forecast import Forecast, forecast
from magicbert.config.plan_section import PlanSection
from magicbert.config.reading import read_yaml
from magicbert.config.roots import CompressConfig
from magicbert.planning.blocks import (
    BlockFlops,
    BlockMemory,
    BlocksPlan,
    hours_of_blocks,
    saved_bytes,
)
from magicbert.space import CostModel
from magicbert.space.blocks import BlockSpace
from magicbert.stages.compress_supernet import STAGE, block_folder, block_space, student_of
from magicbert.stages.plan_block_forward import BlockForward
from magicbert.stages.plan_facts import RECENT_LINES, Rate, Rows, planned_ranks, rows_of
from magicbert.stages.plan_forward import WIDTHS
from magicbert.stages.plan_teacher import encoder_flops, planned_teacher
from magicbert.supernet.anchor import num_references
from magicbert.trail import read_metrics, stage_folder


@dataclass(frozen=True)
class BlocksPlanner:
    """Gathers what the arithmetic needs.

    Attributes:
        config: of the stage.
        options: what ``--plan`` takes as given.
    """

    config: CompressConfig
    options: PlanSection

    def plan(self) -> BlocksPlan:
        """Returns the plan.

        Raises:
            UserError: teacher, data and space do not fit together, or are not given.
        """
        steps, ranks = self.forecast.steps, self.num_ranks
        flops = tuple(self.flops(number) for number in self.numbers)
        counts = self.counts
        tokens = steps * self.config.training.rows_per_step * self.rows.length
        rate = self.rate.tokens_per_second
        return BlocksPlan(
            headline=self.headline(),
            num_ranks=ranks,
            parameters=sum(counts),
            block_parameters=counts,
            paths=self.candidates.pool.count(),
            steps=steps,
            most_steps=self.config.training.num_steps,
            scored_paths=self.forecast.scored,
            tokens=tokens * len(counts),
            memory=self.memory(),
            block_flops=flops,
            run_flops=sum(one.total for one in flops),
            checkpoint_bytes=tuple(map(saved_bytes, counts)),
            tokens_per_second=rate,
            rate_source=self.rate.source,
            hours=hours_of_blocks(flops, tokens, ranks, rate) if rate and steps else None,
        )

    @property
    def numbers(self) -> range:
        """Of the blocks."""
        return range(1, self.config.blocks.num_blocks + 1)

    @property
    def num_ranks(self) -> int:
        """Ranks that have a block."""
        return min(planned_ranks(self.config.launch, self.options), self.config.blocks.num_blocks)

    # --- the model -------------------------------------------------------------------------

    @cached_property
    def rows(self) -> Rows:
        """What a row is made of."""
        return rows_of(self.config.run, self.options, 0)

    @cached_property
    def teacher(self) -> Teacher:
        """The teacher without memory."""
        return planned_teacher(self.config, self.options, self.rows)

    @cached_property
    def sizes(self) -> tuple[int, ...]:
        """The teacher's widths ahead of the first block and after each."""
        return self.teacher.sizes(self.config.blocks.num_blocks)

    @cached_property
    def space(self) -> BlockSpace:
        """The choices of a block."""
        return block_space(self.config)

    @cached_property
    def student(self) -> MagicBertConfig:
        """What the operators read beside their width."""
        student = student_of(self.config, self.rows.vocab_size, self.rows.length, 0)
        student.backend = "torch"
        return student

    def sizes_of(self, number: int) -> tuple[int, int]:
        """Returns the teacher's widths ahead of a block and after it."""
        return self.sizes[number - 1], self.sizes[number]

    @property
    def counts(self) -> tuple[int, ...]:
        """Parameters of each block."""
        operators = int(self.operator_costs[..., 0].sum()) * self.space.num_layers
        return tuple(operators + int(self.map_table(n)[:, 0].sum()) for n in self.numbers)

    # --- paths -----------------------------------------------------------------------------

    @cached_property
    def costs(self) -> CostModel:
        """Cost of every operator at every width."""
        head_size = self.config.blocks.head_size
        return block_costs(self.space, self.student, head_size, self.rows.length)

    @cached_property
    def candidates(self) -> Candidates:
        """The paths of any block, in their bins."""
        blocks = self.config.blocks
        return block_candidates(
            self.space, self.costs, blocks.head_size, self.config.training.num_bins
        )

    @cached_property
    def forecast(self) -> Forecast:
        """Steps and scored paths of a block."""
        return forecast(self.candidates.sizes(), self.config.training)

    @cached_property
    def operator_costs(self) -> Costs:
        """Parameters and FLOPs of every operator, ``[widths, operators + 1, 2]``."""
        return cost_table(self.space, self.costs, self.config.blocks.head_size)

    @cached_property
    def pool_costs(self) -> PoolCosts:
        """Parameters and FLOPs of every path, maps left out."""
        table = self.operator_costs
        return PoolCosts.of(self.candidates.pool, table[..., 0], table[..., 1])

    def map_table(self, number: int) -> Costs:
        """Returns parameters and FLOPs of the maps at a block's ends, ``[widths, 2]``.

        They stand there also where the widths are equal.
        """
        before, after = self.sizes_of(number)
        both = [
            (
                (before + 1) * width + (width + 1) * after,
                2.0 * self.rows.length * width * (before + after),
            )
            for width in self.space.widths
        ]
        return np.array(both, dtype=np.float64)

    def path_costs(self, number: int) -> Costs:
        """Returns parameters and FLOPs of every path with its maps, ``[paths, 2]``."""
        own = np.stack([self.pool_costs.parameters, self.pool_costs.latency], axis=1)
        return own + self.map_table(number)[self.candidates.pool.members[:, 0]]

    # --- figures ---------------------------------------------------------------------------

    def flops(self, number: int) -> BlockFlops:
        """Returns the FLOPs of a block."""
        training = self.config.training
        micro, own = training.rows_per_micro_batch, self.forecast
        dev_rows = training.num_dev_batches * micro
        rounds = max(own.steps // training.steps_per_round - training.warmup_rounds, 0) + 1
        return BlockFlops.of(
            float(self.path_costs(number)[:, 1].mean()),
            self.teacher_flops(number),
            rows=training.rows_per_step,
            steps=own.steps,
            num_references=num_references(self.config.alignment, self.space.product),
            delay_steps=self.config.alignment.delay_steps,
            scored_rows=own.scored * dev_rows,
            taught_rows=rounds * dev_rows,
        )

    def teacher_flops(self, number: int) -> float:
        """Returns the FLOPs of one row through the teacher up to a block's end."""
        ends = self.teacher.block_ends(self.config.blocks.num_blocks)
        return encoder_flops(self.teacher, self.rows.length, ends[number - 1])

    def memory(self) -> BlockMemory:
        """Returns the memory of a rank with the block that needs most."""
        distinct = {self.sizes_of(number): number for number in self.numbers}
        needs = [self.memory_of(number) for number in distinct.values()]
        return max(needs, key=lambda one: one.peak)

    def memory_of(self, number: int) -> BlockMemory:
        """Returns the memory of a rank that trains a block."""
        training = self.config.training
        device, sizes = self.options.device, self.sizes_of(number)
        forward = BlockForward(self.config, self.student, self.rows, device, self.teacher, sizes)
        largest = int(self.path_costs(number)[:, 0].max())
        casts = largest * WIDTHS["bf16"].itemsize if training.precision == "bf16" else 0
        return BlockMemory.of(
            block=self.counts[number - 1],
            path=largest,
            teacher=num_parameters(self.teacher.model),
            activations=forward.kept() + casts,
            teaching=forward.teaching(),
            accumulates=training.rows_per_step > training.rows_per_micro_batch,
        )

    @cached_property
    def rate(self) -> Rate:
        """Tokens a second of all ranks that have a block, if anything is known of it."""
        if self.options.tokens_per_second:
            return Rate(self.options.tokens_per_second, "given")
        speeds = [speed for number in self.numbers for speed in self.speeds(number)]
        if not speeds:
            return Rate(0.0, "not known")
        return Rate(median(speeds) * self.num_ranks, "of this run's last start, per rank")

    def speeds(self, number: int) -> Iterator[float]:
        """Yields the tokens a second that a block's training logged last."""
        folder = block_folder(stage_folder(self.config.run, STAGE), number)
        if not (folder / "config.yaml").is_file():
            return
        then = read_yaml(folder / "config.yaml")["training"]["rows_per_step"]
        rows = [row for row in read_metrics(folder) if row.get("kind") == "train"]
        for row in rows[-RECENT_LINES:]:
            yield row["steps_per_second"] * then * self.rows.length

    def headline(self) -> str:
        """Returns one line about what is trained on what."""
        blocks, training, ranks = self.config.blocks, self.config.training, self.num_ranks
        by_latency = training.bin_by == "size-and-latency"
        stand_in = "; bins by FLOPs, for latencies are not measured here" if by_latency else ""
        models = self.space.count() ** blocks.num_blocks
        return (
            f"compress supernet: {blocks.num_blocks} blocks of {self.space.count():,} paths, "
            f"{models:.3g} models; at most {training.num_steps:,} steps of "
            f"{training.rows_per_step:,} rows x {self.rows.length} tokens; {ranks} "
            f"rank{'s' if ranks > 1 else ''} with blocks, {training.precision}{stand_in}"
        )
