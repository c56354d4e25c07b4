"""``compress select --plan``: how many models the tables describe, and what scoring some takes."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import cached_property
from math import prod
from pathlib import Path

from magicbert.bert.cost import embedding_cost, num_parameters
from magicbert.bert.objective_cost import objective_flops
from magicbert.compression.block_table import FILE as TABLE
from magicbert.compression.block_table import BlockTable
from magicbert.config.plan_section import PlanSection
from magicbert.config.roots import CompressConfig
from magicbert.config.sections import ObjectiveSection
from magicbert.planning.blocks import FP32_BYTES, SelectPlan
from magicbert.stages.compress_select import as_trained
from magicbert.stages.compress_supernet import STAGE, block_folder
from magicbert.stages.plan_block_forward import BlockForward
from magicbert.stages.plan_blocks import BlocksPlanner
from magicbert.trail import own_or_plain_folder

# Logits, and their exponentials while a loss is computed.
COPIES_OF_LOGITS = 2


@dataclass(frozen=True)
class SelectPlanner:
    """Gathers what the arithmetic needs.

    Attributes:
        given: the configuration of the choice.
        options: what ``--plan`` takes as given.
    """

    given: CompressConfig
    options: PlanSection

    def plan(self) -> SelectPlan:
        """Returns the plan.

        Raises:
            UserError: teacher, data and space do not fit together, or are not given.
        """
        select = self.config.select
        models = prod(self.table_sizes)
        evaluated = min(select.num_candidates, models)
        rows = select.num_dev_batches * select.rows_per_batch
        values = num_parameters(self.blocks.teacher.model) + sum(self.blocks.counts)
        weights = values * FP32_BYTES
        return SelectPlan(
            headline=self.headline(),
            models=models,
            is_known=self.is_trained,
            evaluated=evaluated,
            rows=rows,
            flops=rows * (evaluated * self.model_flops + self.embedding_flops),
            weights=weights,
            peak=weights + self.forward_bytes(),
        )

    @property
    def folder(self) -> Path:
        """Where the blocks are or will be."""
        return own_or_plain_folder(self.given.run, STAGE)

    @cached_property
    def config(self) -> CompressConfig:
        """The configuration of the blocks where they are begun, with the limits of this choice."""
        if (block_folder(self.folder, 1) / "config.yaml").is_file():
            return as_trained(self.given, self.folder)
        return self.given

    @cached_property
    def blocks(self) -> BlocksPlanner:
        """The plan of the blocks, for what it knows of teacher, data and sizes."""
        return BlocksPlanner(self.config, self.options)

    @cached_property
    def is_trained(self) -> bool:
        """Whether every block has its table."""
        folders = (block_folder(self.folder, number) for number in self.blocks.numbers)
        return all((folder / TABLE).is_file() for folder in folders)

    @cached_property
    def table_sizes(self) -> tuple[int, ...]:
        """Rows of each block's table; before there is one, those that its shrinking may leave."""
        if not self.is_trained:
            return (self.blocks.forecast.rows,) * len(self.blocks.numbers)
        tables = (BlockTable.read(block_folder(self.folder, n))[0] for n in self.blocks.numbers)
        return tuple(len(table.rows) for table in tables)

    @property
    def model_flops(self) -> float:
        """FLOPs of one row through blocks of the mean path and the teacher's head."""
        config, length = self.blocks.teacher.config, self.blocks.rows.length
        num_predicted = length * self.config.masking.probability
        head = objective_flops(ObjectiveSection(), config, length, num_predicted)
        return head + sum(self.blocks.flops(number).path for number in self.blocks.numbers)

    @property
    def embedding_flops(self) -> float:
        """FLOPs of one row through the teacher's embeddings, which all models share."""
        return embedding_cost(self.blocks.teacher.config, self.blocks.rows.length).flops

    def forward_bytes(self) -> int:
        """Returns what stands beside the weights: a state per block, a layer's own, logits."""
        config, rows = self.config, self.blocks.rows
        size = config.select.rows_per_batch
        settings = dataclasses.replace(
            config.training, rows_per_step=size, rows_per_micro_batch=size, precision="fp32"
        )
        config = dataclasses.replace(config, training=settings)
        sizes = self.blocks.sizes
        forward = BlockForward(
            config, self.blocks.student, rows, self.options.device, self.blocks.teacher,
            (sizes[0], sizes[1]),
        )  # fmt: skip
        states = sum(sizes) * size * rows.length * FP32_BYTES
        num_predicted = round(size * rows.length * config.masking.probability)
        logits = num_predicted * rows.vocab_size * FP32_BYTES * COPIES_OF_LOGITS
        return states + max(forward.largest_layer(), logits)

    def headline(self) -> str:
        """Returns one line about what is chosen from what."""
        select = self.config.select
        limits = {
            "parameters": f"{select.max_parameters:,}" if select.max_parameters else "",
            "FLOPs": f"{select.max_flops:g}" if select.max_flops else "",
        }
        given = [f"at most {value} {name}" for name, value in limits.items() if value]
        return (
            f"compress select: {self.config.blocks.num_blocks} tables of {self.folder}, "
            f"{' and '.join(given) or 'no limit'}; the best {select.num_candidates:,} by their "
            "tables are evaluated"
        )
