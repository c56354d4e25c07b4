"""``magicbert compress supernet``: each block of the space, trained against the teacher."""

from __future__ import annotations

import itertools
import logging
import os
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from magicbert.bert.block_supernet import (
    BlockRegression,
    BlockSupernet,
    encoder_operators,
)
from magicbert.bert.modeling.configuration_magicbert import MagicBertConfig
from magicbert.bert.taught_batches import TaughtSource
from magicbert.bert.teacher import Teacher
from magicbert.compression.block_candidates import block_candidates, block_costs
from magicbert.compression.block_origin import BlockOrigin
from magicbert.compression.block_table import FILE as TABLE
from magicbert.compression.block_training import BlockStep, BlockTraining
from magicbert.compression.pool_sampling import PoolSampler
from magicbert.compression.shrinking import Candidates
from magicbert.compression.width_anchors import AnchorPerWidth
from magicbert.config.roots import CompressConfig
from magicbert.config.sections import TrainingSection
from magicbert.data.manifest import Manifest, read_manifest
from magicbert.data.source import TokenSource
from magicbert.data.verification import verify_prepared
from magicbert.errors import UserError
from magicbert.records import digest_of
from magicbert.run_lock import alone_in, check_free
from magicbert.search.latency import LatencyTable
from magicbert.space import Architecture, CostModel
from magicbert.space.blocks import BlockSpace
from magicbert.space.randomness import keyed_generator
from magicbert.stages.compress_latency import chain_table
from magicbert.stages.run_teacher import open_run_teacher
from magicbert.stages.search_latency import FILE as LATENCIES
from magicbert.stages.search_latency import read_table
from magicbert.trail import Trail, run_folder, stage_folder
from magicbert.training.control import Deadline
from magicbert.training.parts import Parts, Sections
from magicbert.training.starting.environment import accelerator, is_launched
from magicbert.training.starting.launching import run_on_ranks
from magicbert.training.watching.exit_codes import EXIT_INTERRUPTED
from magicbert.training.watching.interruption import listening

LOGGER = logging.getLogger("magicbert")
STAGE = "blocks"


def run(config: CompressConfig) -> None:
    """Trains every block, on as many ranks as there are; each rank trains blocks of its own.

    Raises:
        UserError: configuration, teacher and prepared data do not fit together.
    """
    work = BlockwiseTraining(config)
    if work.is_finished():
        LOGGER.info("compress supernet is finished already: %s", work.folder)
        return
    check_free(work.folder)
    run_on_ranks("compress", config, work.folder, work.check, work.train)


def block_space(config: CompressConfig) -> BlockSpace:
    """Returns the choices of each block."""
    section = config.blocks
    return BlockSpace(section.widths, section.operators, section.layers_per_block)


def block_folder(folder: Path, number: int) -> Path:
    """Returns the folder of a block, numbered from 1."""
    return folder / f"block-{number}"


def open_teacher(config: CompressConfig) -> Teacher:
    """Loads the teacher of a run.

    Raises:
        UserError: there is none, or it cannot teach on the prepared data.
    """
    if not config.teacher:
        raise UserError(
            "teacher: must be given: the folder of the model that the blocks learn from"
        )
    return open_run_teacher(config.teacher, config.run)


@dataclass(frozen=True)
class BlockwiseTraining:
    """The stage.

    Attributes:
        config: its configuration.
        blocks: where the blocks stand, if not in this configuration's own folder.
    """

    config: CompressConfig
    blocks: Path | None = None

    @property
    def folder(self) -> Path:
        """Where the blocks stand."""
        return self.blocks or stage_folder(self.config.run, STAGE)

    @cached_property
    def manifest(self) -> Manifest:
        """The prepared data."""
        return read_manifest(run_folder(self.config.run) / "prepare")

    @cached_property
    def teacher(self) -> Teacher:
        """Whom the blocks learn from."""
        return open_teacher(self.config)

    @cached_property
    def origin(self) -> BlockOrigin:
        """What decides every block's table."""
        table = self.latencies
        latency = "" if table is None else digest_of(table.to_json())
        return BlockOrigin.of(self.config, self.teacher.digest, self.manifest.digest, latency)

    @cached_property
    def latencies(self) -> LatencyTable | None:
        """What bins follow beside sizes: measured once, then the blocks' own; ``None`` = FLOPs."""
        config = self.config
        if config.training.bin_by != "size-and-latency":
            return None
        if (self.folder / LATENCIES).is_file():
            return read_table(self.folder / LATENCIES)
        if is_launched():
            raise UserError(
                f"{self.folder / LATENCIES}: no latencies here, and no rank measures while others "
                "do; start the ranks by `magicbert compress supernet`, which measures first"
            )
        space, size = block_space(config), config.blocks.num_blocks

        def draw(number: int) -> list[Architecture]:
            generator = keyed_generator(config.training.seed, "latency-checks", 0)
            chains = [[space.paths.sample(generator) for _ in range(size)] for _ in range(number)]
            names = ([encoder_operators(space, one, config.blocks.head_size) for one in chain]
                     for chain in chains)  # fmt: skip
            return [Architecture(tuple(itertools.chain(*chain))) for chain in names]

        return chain_table(config, self.student, self.manifest.length, self.folder, draw)

    def is_finished(self) -> bool:
        """Whether every block has its table, made from this very configuration."""
        numbers = range(1, self.config.blocks.num_blocks + 1)
        folders = [block_folder(self.folder, number) for number in numbers]
        if not all((folder / TABLE).is_file() for folder in folders):
            return False
        for folder in folders:
            self.origin.check(folder)
        return True

    def check(self, num_ranks: int) -> None:
        """Finds whatever keeps training from starting.

        Raises:
            UserError: teacher, data and space do not fit together.
        """
        blocks = self.config.blocks
        self.teacher.block_ends(blocks.num_blocks)
        with torch.device("meta"):
            self.supernet(1)
        for number in range(1, blocks.num_blocks + 1):
            self.origin.check(block_folder(self.folder, number))
        self.candidates()
        if num_ranks > blocks.num_blocks:
            LOGGER.warning(
                "%d ranks for %d blocks: the others have nothing to do",
                num_ranks, blocks.num_blocks,
            )  # fmt: skip

    def train(self) -> None:
        """Trains this rank's blocks, one after the other."""
        rank, num_ranks = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
        device = own_device()
        with ExitStack() as stack:
            if rank == 0:
                stack.enter_context(alone_in(self.folder))
            if self.config.run.verify == "full" and os.environ.get("LOCAL_RANK", "0") == "0":
                verify_prepared(run_folder(self.config.run) / "prepare", self.manifest)
            interruption = stack.enter_context(listening())
            deadline = Deadline(self.config.training.max_minutes)
            for number in range(rank + 1, self.config.blocks.num_blocks + 1, num_ranks):
                block = stack.enter_context(ExitStack())
                training = self.training(number, device, block)
                is_done = training.run(lambda: interruption.is_requested or deadline.is_over)
                block.close()
                if interruption.is_requested:
                    interruption.agreed()
                    interruption.settle()
                    LOGGER.info("block %d: stopped with a checkpoint", number)
                    sys.exit(EXIT_INTERRUPTED)
                if not is_done:
                    LOGGER.info("out of time; give the same command again to go on")
                    return

    def training(self, number: int, device: torch.device, stack: ExitStack) -> BlockTraining:
        """Puts the training of one block together, and writes what it is made from."""
        config, settings = self.config, self.config.training
        folder = block_folder(self.folder, number)
        self.origin.check(folder)
        trail = stack.enter_context(Trail(folder, config))
        self.origin.write(folder)
        space, supernet = block_space(config), self.supernet(number).to(device)
        candidates = self.candidates()
        sampler = PoolSampler(
            candidates.pool, config.sampling, settings.seed, f"block-{number}-path"
        )
        anchors = (
            AnchorPerWidth(space.product, config.alignment.every, config.alignment.delay_steps)
            if config.alignment.enabled
            else None
        )
        parts = Parts(BlockRegression(), self.source(number, device), sampler, anchors)
        sections = Sections(step_settings(config), config.optimizer, config.alignment)
        costs = self.costs

        def full_names(path: Architecture) -> tuple[str, ...]:
            return encoder_operators(space, path, config.blocks.head_size)

        def flops(path: Architecture) -> float:
            return sum(costs.of_operator(name).flops for name in full_names(path))

        LOGGER.info(
            "block %d of %d: %s paths; teacher's widths %s",
            number, config.blocks.num_blocks, f"{candidates.pool.count():,}", self.sizes(number),
        )  # fmt: skip
        return BlockTraining(
            number=number,
            folder=folder,
            step=BlockStep(supernet, parts, sections, flops, settings.precision),
            sampler=sampler,
            candidates=candidates,
            costs=costs,
            full_names=full_names,
            settings=settings,
            origin=self.origin.digests,
            report=lambda kind, values: report(trail, kind, values),
        )

    def source(self, number: int, device: torch.device) -> TaughtSource:
        """Returns the batches of a block; the teacher stands on the device."""
        training = self.config.training
        rows = TokenSource(
            run_folder(self.config.run) / "prepare",
            self.config.masking,
            seed=training.seed,
            rows_per_step=training.rows_per_step,
            rows_per_micro_batch=training.rows_per_micro_batch,
        )
        ends = (0, *self.teacher.block_ends(self.config.blocks.num_blocks))
        return TaughtSource(rows, self.teacher.to(device), (ends[number - 1], ends[number]))

    def sizes(self, number: int) -> tuple[int, int]:
        """Returns the teacher's widths ahead of a block and after it."""
        sizes = self.teacher.sizes(self.config.blocks.num_blocks)
        return sizes[number - 1], sizes[number]

    def supernet(self, number: int) -> BlockSupernet:
        """Builds a block with its initial weights."""
        config = self.config
        return BlockSupernet(
            block_space(config),
            self.student,
            config.blocks.head_size,
            self.sizes(number),
            f"{config.training.seed}:block-{number}",
        )

    @property
    def student(self) -> MagicBertConfig:
        """What the blocks' operators read beside their width."""
        manifest = self.manifest
        return student_of(self.config, manifest.vocab_size, manifest.length, manifest.pad_id)

    @cached_property
    def costs(self) -> CostModel:
        """Cost of every operator at every width on a full row."""
        head_size, length = self.config.blocks.head_size, self.manifest.length
        costs = block_costs(block_space(self.config), self.student, head_size, length)
        return costs if self.latencies is None else self.latencies.extend(costs)

    def candidates(self) -> Candidates:
        """Returns the paths of any block, in their bins."""
        config = self.config
        return block_candidates(
            block_space(config), self.costs, config.blocks.head_size, config.training.num_bins,
            by_latency=self.latencies is not None,
        )  # fmt: skip


def student_of(
    config: CompressConfig, vocab_size: int, length: int, pad_id: int
) -> MagicBertConfig:
    """Returns what blocks' operators read beside their width.

    Args:
        config: of the stage.
        vocab_size: tokens of the tokenizer.
        length: tokens of a row.
        pad_id: of the padding token.
    """
    training = config.training
    return MagicBertConfig(
        architecture="",
        vocab_size=vocab_size,
        hidden_size=config.blocks.widths[0],
        max_position_embeddings=length,
        hidden_dropout_prob=training.dropout,
        attention_probs_dropout_prob=training.attention_dropout,
        initializer_range=training.initializer_range,
        pad_token_id=pad_id,
        backend=training.backend,
    )


def step_settings(config: CompressConfig) -> TrainingSection:
    """Returns the settings of the step in the form that every training reads."""
    training = config.training
    return TrainingSection(
        seed=training.seed,
        num_steps=training.num_steps,
        rows_per_step=training.rows_per_step,
        rows_per_micro_batch=training.rows_per_micro_batch,
        precision=training.precision,
        backend=training.backend,
    )


def own_device() -> torch.device:
    """Returns the device of this rank."""
    if accelerator().device_name() == "cpu":
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))


def report(trail: Trail, kind: str, values: Mapping[str, Any]) -> None:
    """Writes one event of a block to its metrics and to the log."""
    trail.record(kind, **values)
    if kind == "train":
        LOGGER.info(
            "block %d  step %d  loss %.4f  %s paths left",
            values["block"], values["step"], values["loss"], f"{values['paths_left']:,}",
        )  # fmt: skip
    else:
        sizes = ", ".join(str(count) for count in values["paths_per_bin"].values())
        LOGGER.info("block %d  round %d: paths per bin %s", values["block"], values["round"], sizes)
