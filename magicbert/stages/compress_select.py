"""``magicbert compress select``: the blocks' tables -> the best whole models under a budget."""

from __future__ import annotations

import dataclasses
import logging
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from magicbert.bert.block_chain import BlockChain, Paths
from magicbert.bert.chain_latency import embeddings_part, head_part, map_part
from magicbert.bert.cost import border_cost, embedding_cost
from magicbert.bert.modeling.configuration_magicbert import MagicBertConfig
from magicbert.compression.block_table import BlockRow, BlockTable
from magicbert.compression.block_weights import load_block
from magicbert.compression.selection import Combination, Selection
from magicbert.config.reading import from_tree, read_yaml, to_tree
from magicbert.config.roots import CompressConfig
from magicbert.data.source import TokenSource
from magicbert.data.verification import verify_prepared
from magicbert.errors import UserError
from magicbert.records import read_record, write_record
from magicbert.run_lock import alone_in
from magicbert.search.latency import LatencyTable
from magicbert.space import Architecture, Cost, Limits
from magicbert.space.blocks import width_of_name
from magicbert.space.randomness import keyed_generator
from magicbert.stages.compress_latency import chain_table, shown_latency, whole_latencies
from magicbert.stages.compress_supernet import STAGE, BlockwiseTraining, block_folder
from magicbert.supernet.scoring import Score
from magicbert.trail import Trail, own_or_plain_folder, run_folder, stage_folder

LOGGER = logging.getLogger("magicbert")
RESULT = "architectures.json"
SCHEMA = "magicbert/architectures/1"


def run(config: CompressConfig) -> None:
    """Chooses models and writes ``compress/architectures.json``.

    Raises:
        UserError: a block is not finished, the blocks do not belong together or to the teacher, or
            no model keeps the limits.
    """
    blocks = own_or_plain_folder(config.run, STAGE)
    folder = stage_folder(config.run, "compress")
    choice = Choice(as_trained(config, blocks), blocks)
    with alone_in(folder):
        if choice.is_finished(folder):
            LOGGER.info("compress select is finished already: %s", folder / RESULT)
            return
        with Trail(folder, config) as trail:
            choice.run(folder, trail)


def as_trained(config: CompressConfig, blocks: Path) -> CompressConfig:
    """Returns the configuration that the blocks were trained with, but for what is chosen how.

    Raises:
        UserError: there are no blocks.
    """
    file = block_folder(blocks, 1) / "config.yaml"
    if not file.is_file():
        raise UserError(f"{blocks}: no blocks; run `magicbert compress supernet` first")
    trained = from_tree(CompressConfig, read_yaml(file), str(file))
    return dataclasses.replace(
        trained,
        target="select",
        run=config.run,
        teacher=config.teacher or trained.teacher,
        select=config.select,
        latency=config.latency,
    )


@dataclass(frozen=True)
class Choice:
    """The stage.

    Attributes:
        config: as the blocks were trained, with the limits of this choice.
        blocks: folder of the trained blocks.
    """

    config: CompressConfig
    blocks: Path

    @cached_property
    def work(self) -> BlockwiseTraining:
        """The training of the blocks, for what it knows of teacher, data and sizes."""
        return BlockwiseTraining(self.config, self.blocks)

    @property
    def folders(self) -> list[Path]:
        """The folder of each block."""
        numbers = range(1, self.config.blocks.num_blocks + 1)
        return [block_folder(self.blocks, number) for number in numbers]

    def tables(self) -> list[tuple[BlockRow, ...]]:
        """Reads the table of every block.

        Raises:
            UserError: one is missing, or was made from another teacher, other data or settings.
        """
        expected = self.work.origin.digests
        tables = []
        for folder in self.folders:
            table, origin = BlockTable.read(folder)
            wrong = sorted(name for name in expected if origin[name] != expected[name])
            if wrong:
                raise UserError(
                    f"{folder}: was trained with other {', '.join(wrong)} than this run has now; "
                    "train the blocks again, or give the teacher of then"
                )
            tables.append(table.rows)
        return tables

    def is_finished(self, folder: Path) -> bool:
        """Whether the result of the same tables and limits stands already."""
        if not (folder / RESULT).is_file():
            return False
        former = read_record(folder / RESULT, SCHEMA)
        return bool(
            former["settings"] == to_tree(self.config.select)
            and ("latency" in former or not self.is_timed)
            and former["origin"] == self.work.origin.digests
        )

    def run(self, folder: Path, trail: Trail) -> None:
        """Chooses, scores and writes."""
        tables = self.tables()
        latencies = self.latencies(tables, folder) if self.is_timed else None
        selection = self.selection(tables, latencies)
        chosen = selection.best(self.config.select.num_candidates)
        LOGGER.info(
            "compress select: %d models under (%s); sums of block losses %.4f to %.4f",
            len(chosen), selection.limits, chosen[0].loss, chosen[-1].loss,
        )  # fmt: skip
        models = {self.paths(tables, one): one for one in chosen}
        scores = self.score(list(models))
        ranked = sorted(models, key=lambda paths: (scores[paths].loss, models[paths].rows))
        results = [self.result(tables, models[paths], scores[paths]) for paths in ranked]
        if latencies is not None:
            self.time_best(results)
        for rank, result in enumerate(results, start=1):
            trail.record("candidate", rank=rank, **result)
        payload = {
            "results": results[: self.config.select.num_results],
            "random": [],
            "scored": results,
            "limits": dataclasses.asdict(self.limits),
            "origin": self.work.origin.digests,
            "settings": to_tree(self.config.select),
            **({} if latencies is None else {"latency": latencies.error_record()}),
        }
        write_record(folder / RESULT, SCHEMA, payload)
        best = results[0]
        LOGGER.info(
            "best: %s, loss %.4f, %s parameters%s",
            best["architecture"], best["loss"], f"{best['parameters']:,}", shown_latency(best),
        )  # fmt: skip

    @property
    def limits(self) -> Limits:
        """What a model must keep."""
        select = self.config.select
        return Limits(
            select.max_parameters, select.min_parameters, select.max_flops, select.max_latency_ms
        )

    @property
    def is_timed(self) -> bool:
        """Whether a setting asks for latencies."""
        latency = self.config.latency
        return bool(self.config.select.max_latency_ms or latency.measure or latency.file)

    @property
    def encoder(self) -> MagicBertConfig:
        """What the models share: sizes, but for widths."""
        sizes = self.work.student
        sizes.embedding_size = self.config.select.embedding_size or None
        return sizes

    def latencies(self, tables: list[tuple[BlockRow, ...]], folder: Path) -> LatencyTable:
        """Returns the latencies of all parts, checked against whole models of random rows."""

        def draw(number: int) -> list[Architecture]:
            generator = keyed_generator(self.config.training.seed, "latency-checks", 0)
            chains = (
                [table[int(generator.integers(len(table)))] for table in tables]
                for _ in range(number)
            )
            return [
                Architecture(tuple(name for row in chain for name in row.operators))
                for chain in chains
            ]

        return chain_table(self.config, self.encoder, self.work.manifest.length, folder, draw)

    def time_best(self, results: list[dict[str, Any]]) -> None:
        """Measures the best models whole, notes it beside the prediction, and tells what it was."""
        config, length = self.config, self.work.manifest.length
        best = results[: config.select.num_results]
        found = whole_latencies(
            config.latency, self.encoder, length,
            [Architecture.parse(one["architecture"]) for one in best],
        )  # fmt: skip
        for one, nanoseconds in zip(best, found, strict=True):
            one["measured_ms"] = nanoseconds / 1e6
        limit = config.select.max_latency_ms
        slower = [one for one in best if limit and one["measured_ms"] > limit]
        for one in slower:
            LOGGER.warning(
                "%s: measured %.4g ms, above the limit of %g ms that its parts keep with the "
                "error added", one["architecture"], one["measured_ms"], limit,
            )  # fmt: skip

    def selection(
        self, tables: list[tuple[BlockRow, ...]], latencies: LatencyTable | None = None
    ) -> Selection:
        """Returns the search over the tables, with the costs of ends and borders.

        A limit on latency is put on the prediction so that a model as much slower than predicted as
        the worst of the checks still keeps it.
        """
        length = self.work.manifest.length
        if latencies is None:
            return Selection(
                tables, self.entry, lambda a, b: border_cost(a, b, length), self.limits
            )
        parts = {name: timing.median_ns for name, timing in latencies.operators.items()}

        def border(before: int, after: int) -> Cost:
            taken = parts[map_part(before, after)] if before != after else 0
            return border_cost(before, after, length) + Cost(latency_ns=taken)

        timed = [
            [replace(row, latency_ns=sum(parts[name] for name in row.operators)) for row in table]
            for table in tables
        ]
        allowed = self.limits.max_latency_ms
        allowed = allowed and latencies.limit_on_prediction(allowed)
        return Selection(
            timed,
            lambda width: self.entry(width) + Cost(latency_ns=parts[embeddings_part(width)]),
            border,
            replace(self.limits, max_latency_ms=allowed),
            lambda width: Cost(latency_ns=parts[head_part(width)]),
        )

    def entry(self, width: int) -> Cost:
        """Returns the cost of tables and projection ahead of a first block of some width."""
        sizes = self.encoder
        sizes.hidden_size = width
        return embedding_cost(sizes, self.work.manifest.length)

    @staticmethod
    def paths(tables: list[tuple[BlockRow, ...]], model: Combination) -> Paths:
        """Returns the path of each block."""
        rows = zip(tables, model.rows, strict=True)
        return tuple(table[number].path for table, number in rows)

    def score(self, models: list[Paths]) -> dict[Paths, Score]:
        """Returns what the models are worth as complete nets, on held-out rows."""
        config, work = self.config, self.work
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        prepared = run_folder(config.run) / "prepare"
        if config.run.verify == "full":
            verify_prepared(prepared, work.manifest)
        rows = config.select.rows_per_batch
        source = TokenSource(
            prepared, config.masking, seed=config.training.seed, rows_per_step=rows,
            rows_per_micro_batch=rows,
        )  # fmt: skip
        blocks = [
            load_block(work.supernet(number), folder, device)
            for number, folder in enumerate(self.folders, start=1)
        ]
        batches = source.dev_batches(config.select.num_dev_batches)
        chain = BlockChain(work.teacher.to(device), blocks)
        return chain.scores(models, [batch.to(device) for batch in batches])

    def result(
        self, tables: list[tuple[BlockRow, ...]], model: Combination, score: Score
    ) -> dict[str, Any]:
        """Returns one model as it is written."""
        rows = [table[number] for table, number in zip(tables, model.rows, strict=True)]
        operators = tuple(name for row in rows for name in row.operators)
        return {
            "architecture": str(Architecture(operators)),
            "embedding_size": self.config.select.embedding_size or width_of_name(rows[0].path[0]),
            "loss": score.loss,
            "accuracy": score.accuracy,
            "block_loss": model.loss,
            "parameters": model.cost.parameters,
            "flops": model.cost.flops,
            **({"latency_ms": model.cost.latency_ms} if model.cost.latency_ns else {}),
            "blocks": [str(row.path) for row in rows],
        }
