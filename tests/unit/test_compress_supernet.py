"""The stage that trains the blocks: stopped and resumed, and what it refuses."""

from __future__ import annotations

import dataclasses
import itertools
import json
from contextlib import ExitStack
from pathlib import Path

import pytest
import torch
from tiny_compression import tiny_config, write_run

from magicbert.compression.block_table import BlockTable
from magicbert.config.reading import load_config
from magicbert.config.roots import CompressConfig
from magicbert.config.sections import AlignmentSection, RunSection
from magicbert.errors import ConfigError, UserError
from magicbert.stages import compress
from magicbert.stages.compress_supernet import BlockwiseTraining

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_run(tmp_path_factory.mktemp("compress"))
    compress.run(tiny_config(folder))
    return folder


def rows(run: Path, number: int) -> list[dict[str, object]]:
    return [
        json.loads(line)
        for line in (run / "blocks" / f"block-{number}" / "metrics.jsonl").read_text().splitlines()
    ]


def labelled(run: Path, label: str, **changes: object) -> CompressConfig:
    section = RunSection(root=str(run.parent), name=run.name, label=label)
    return tiny_config(run, run=section, **changes)


def test_every_block_ends_in_a_table_of_its_bins(run: Path) -> None:
    for number in (1, 2):
        table, origin = BlockTable.read(run / "blocks" / f"block-{number}")
        assert set(origin) == {"teacher", "data", "settings"}
        assert {row.bin for row in table.rows} == {0, 1, 2}
        for _, group in itertools.groupby(table.rows, key=lambda row: row.bin):
            losses = [row.loss for row in group]
            assert 1 <= len(losses) <= 2
            assert losses == sorted(losses)


def test_the_loss_falls_and_the_bins_are_halved(run: Path) -> None:
    for number in (1, 2):
        losses = [row["loss"] for row in rows(run, number) if row["kind"] == "train"]
        assert losses[-1] < 0.9 * losses[0]
        sizes = [
            sum(row["paths_per_bin"].values())
            for row in rows(run, number)
            if row["kind"] == "round"
        ]
        assert sizes[0] > sizes[1] > sizes[-1]
        # The first round only trains.
        assert sizes[0] == BlockwiseTraining(tiny_config(run)).candidates().pool.count()


def test_a_finished_stage_is_not_begun_again(run: Path, caplog: pytest.LogCaptureFixture) -> None:
    before = (run / "blocks" / "block-1" / "table.json").stat().st_mtime_ns
    compress.run(tiny_config(run))
    assert (run / "blocks" / "block-1" / "table.json").stat().st_mtime_ns == before


@pytest.mark.parametrize("period", [2, 5])
def test_stopping_and_going_on_changes_nothing(run: Path, period: int) -> None:
    config = labelled(run, f"stops-{period}")
    work = BlockwiseTraining(config)
    for _ in range(20):
        with ExitStack() as stack:
            calls = itertools.count()
            training = work.training(1, CPU, stack)
            if training.run(lambda calls=calls: next(calls) == period):
                break
    else:
        pytest.fail("the block never ended")
    again = (run / f"blocks-stops-{period}" / "block-1" / "table.json").read_text()
    first = (run / "blocks" / "block-1" / "table.json").read_text()
    assert again == first


def test_a_stop_between_weights_and_round_is_made_good(run: Path) -> None:
    config = labelled(run, "lost-round")
    work = BlockwiseTraining(config)
    with ExitStack() as stack:
        calls = itertools.count()
        work.training(1, CPU, stack).run(lambda: next(calls) == 6)
    file = run / "blocks-lost-round" / "block-1" / "round-0002.json"
    left = file.read_text()
    file.unlink()
    with ExitStack() as stack:
        training = work.training(1, CPU, stack)
        training.resume()
        assert training.step.standing.step == 6
    assert file.read_text() == left


def test_a_block_goes_on_with_its_own_settings_only(run: Path) -> None:
    other = dataclasses.replace(
        tiny_config(run), alignment=AlignmentSection(enabled=False, num_blocks=2, every=2)
    )
    with pytest.raises(UserError, match=r"alignment\.enabled: True -> False"):
        compress.run(other)


def test_what_is_refused(tmp_path: Path, run: Path) -> None:
    with pytest.raises(UserError, match="no model of magicbert"):
        compress.run(labelled(run, "x", teacher=str(tmp_path)))
    with pytest.raises(UserError, match="teacher: must be given"):
        compress.run(labelled(run, "x", teacher=""))
    with pytest.raises(ConfigError) as error:
        load_config(
            CompressConfig, None,
            {"alignment.enabled": "true", "alignment.anchor": "children",
             "sampling.method": "strict-fair", "optimizer.name": "lamb"},
        )  # fmt: skip
    for word in ("alignment.anchor", "sampling.method", "optimizer"):
        assert word in str(error.value)
    blocks = dataclasses.replace(tiny_config(run).blocks, num_blocks=5)
    with pytest.raises(UserError, match="4 layers, which do not make 5 blocks"):
        compress.run(labelled(run, "x", blocks=blocks))
