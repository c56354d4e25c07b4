"""Compression under a limit on latency, by tables made by hand: nothing here depends on a clock."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_compression import tiny_config, write_run

from magicbert.bert.block_supernet import named_at
from magicbert.bert.chain_latency import parts_of, timed_chain
from magicbert.compression.block_table import BlockTable
from magicbert.config.roots import CompressConfig
from magicbert.config.sections import LatencySection, SelectSection
from magicbert.errors import UserError
from magicbert.records import read_record, write_record
from magicbert.search.timing import Timing
from magicbert.space import Architecture
from magicbert.stages import compress
from magicbert.stages.compress_latency import table_of
from magicbert.stages.compress_select import Choice
from magicbert.stages.compress_supernet import BlockwiseTraining
from magicbert.stages.retrain import ARCHITECTURES_SCHEMA
from magicbert.stages.search_latency import SCHEMA, facts_of, timed_parts

CHECKED = Architecture.parse("mha1w8-ffnw8-conv3w16")
MILLISECOND = 1_000_000
# Against its size and FLOPs, a convolution is slow.
FACTOR = {"mha1": 1, "mha2": 1, "ffn": 2, "conv3": 12}


def nanoseconds(name: str) -> int:
    """Latency by hand: of operators by kind and width, of ends and maps by width."""
    if "-" in name:
        return MILLISECOND * int(name.rpartition("-")[2]) // 16
    kind, _, width = name.rpartition("w")
    return MILLISECOND * FACTOR[kind] * int(width) // 8


def timing(count: int) -> Timing:
    return Timing(count, count, count, 5)


def write_table(config: CompressConfig, file: Path, embedding_size: int | None) -> LatencySection:
    """Writes a table whose sums are a quarter too low; returns the section that names it."""
    work, section = BlockwiseTraining(config), LatencySection(num_threads=1, seconds=0.001)
    encoder = work.student
    encoder.embedding_size = embedding_size
    parts = timed_parts(section, encoder, work.manifest.length)
    blocks = config.blocks
    names = [named_at(o, w, blocks.head_size) for o in blocks.operators for w in blocks.widths]
    ends = [f"{end}-{width}" for end in ("embeddings", "head") for width in blocks.widths]
    every = [*names, *ends, *(f"map-{a}-{b}" for a, b in itertools.permutations(blocks.widths, 2))]
    found = {name: timing(nanoseconds(name)) for name in every}
    predicted = sum(nanoseconds(name) for name in parts_of(CHECKED.operators))
    found[f"whole {CHECKED}"] = timing(predicted * 5 // 4)
    table = table_of(facts_of(section, parts), found, [CHECKED])
    write_record(file, SCHEMA, table.to_json())
    return dataclasses.replace(section, file=str(file))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Blocks whose bins follow the latencies of a table."""
    folder = write_run(tmp_path_factory.mktemp("compress-latency"))
    compress.run(by_latency(folder))
    return folder


def by_latency(folder: Path) -> CompressConfig:
    config = tiny_config(folder)
    section = write_table(config, folder / "given.json", None)
    training = dataclasses.replace(config.training, bin_by="size-and-latency", num_steps=6)
    return dataclasses.replace(config, training=training, latency=section)


def choosing(run: Path, label: str, **changes: Any) -> CompressConfig:
    section = SelectSection(
        num_candidates=4, num_dev_batches=1, rows_per_batch=4, num_results=2, embedding_size=8,
        **changes,
    )  # fmt: skip
    latency = write_table(tiny_config(run), run / "chosen.json", 8)
    place = dataclasses.replace(tiny_config(run).run, label=label)
    return CompressConfig(target="select", run=place, select=section, latency=latency)


def test_parts_of_a_model() -> None:
    assert parts_of(CHECKED.operators) == (
        "embeddings-8", "mha1w8", "ffnw8", "conv3w16", "map-8-16", "head-16",
    )  # fmt: skip


def test_every_part_and_model_can_be_called(run: Path) -> None:
    """Real calls on the asked batch, with tables of a width of their own."""
    work = BlockwiseTraining(tiny_config(run))
    encoder = work.student
    encoder.embedding_size = 24
    parts = timed_parts(LatencySection(rows=2, length=7), encoder, work.manifest.length)
    calls = timed_chain(parts, (8, 16), ("ffnw8", "conv3w16"), [CHECKED])
    assert set(calls) >= set(parts_of(CHECKED.operators)) - {"mha1w8"}
    assert calls["embeddings-16"]().shape == (2, 7, 16)
    assert calls["map-8-16"]().shape == (2, 7, 16)
    assert calls["head-8"]().shape == (2, 2)
    assert calls[f"whole {CHECKED}"]().logits.shape == (2, 2)


def test_bins_follow_size_and_latency(run: Path) -> None:
    work = BlockwiseTraining(by_latency(run))
    candidates = work.candidates()
    plain = BlockwiseTraining(tiny_config(run)).candidates()
    assert set(candidates.pool.enumerate()) != set(plain.pool.enumerate())
    table, origin = BlockTable.read(run / "blocks" / "block-1")
    assert "latency" in origin
    every = list(work.candidates().pool.space.enumerate())
    longest = max(latency_of(work, path) for path in every)
    for row in table.rows:
        assert row.latency_ns == sum(map(nanoseconds, row.operators))
        assert row.bin == max(-(-3 * row.latency_ns // longest) - 1, 0)


def latency_of(work: BlockwiseTraining, path: Architecture) -> int:
    width = int(path[0].removeprefix("w"))
    names = [name for name in path.operators[1:] if name != "skip"]
    return sum(nanoseconds(named_at(n, width, work.config.blocks.head_size)) for n in names)


def test_former_blocks_keep_their_origin(run: Path) -> None:
    """Blocks that were trained before latencies were asked about go on as they are."""
    origin = BlockwiseTraining(tiny_config(run)).origin
    assert "bin_by" not in origin.settings["training"]
    assert set(origin.digests) == {"teacher", "data", "settings"}


def test_the_best_under_both_limits_with_the_error_added(run: Path) -> None:
    config = choosing(run, "both", max_parameters=12_000, max_latency_ms=25.0)
    compress.run(config)
    written = read_record(run / "compress-both" / "architectures.json", ARCHITECTURES_SCHEMA)
    assert written["latency"]["error_bound"] == pytest.approx(0.25)
    tables = [BlockTable.read(run / "blocks" / f"block-{n}")[0].rows for n in (1, 2)]
    kept = []
    choice = Choice(dataclasses.replace(tiny_config(run), select=config.select), run / "blocks")
    unlimited = dataclasses.replace(config.select, max_parameters=0, max_latency_ms=0.0)
    free = dataclasses.replace(choice.config, select=unlimited)
    costs = Choice(free, run / "blocks").selection(tables).best(10_000)
    assert len(costs) == len(tables[0]) * len(tables[1])
    for one in costs:
        rows = [table[at] for table, at in zip(tables, one.rows, strict=True)]
        names = parts_of([name for row in rows for name in row.operators])
        predicted = sum(map(nanoseconds, names)) / MILLISECOND
        if predicted * 1.25 <= 25.0 and one.cost.parameters <= 12_000:
            kept.append((one.loss, predicted))
    found = sorted((one["block_loss"], one["latency_ms"]) for one in written["scored"])
    assert 0 < len(kept) < len(costs)
    best = sorted(kept)[:4]
    assert [loss for loss, _ in found] == pytest.approx([loss for loss, _ in best])
    assert [taken for _, taken in found] == pytest.approx([taken for _, taken in best])
    assert all(one["measured_ms"] > 0 for one in written["results"])


def test_what_is_refused(run: Path) -> None:
    with pytest.raises(UserError, match=r"max_latency_ms .* take at least [\d.]+ ms"):
        compress.run(choosing(run, "none", max_latency_ms=0.5))
    other = choosing(run, "other", max_latency_ms=20.0)
    wrong = dataclasses.replace(other.latency, rows=3)
    with pytest.raises(UserError, match="rows is 1 there and 3 here"):
        compress.run(dataclasses.replace(other, latency=wrong))
    assert not torch.is_inference_mode_enabled()
