"""Models chosen from trained blocks: their cost, their scores, and how they are retrained."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from tiny_compression import tiny_config, write_run

from magicbert.bert.cost import bert_cost_model
from magicbert.bert.spaces import fitted_to
from magicbert.bert.supernet import build_supernet
from magicbert.compression.block_weights import load_block
from magicbert.config.roots import CompressConfig, RetrainConfig
from magicbert.config.sections import ModelSection, RunSection, SelectSection
from magicbert.data.manifest import read_manifest
from magicbert.data.source import TokenSource
from magicbert.errors import UserError
from magicbert.records import read_record
from magicbert.space import Architecture, SearchSpace
from magicbert.stages import compress
from magicbert.stages.compress_select import Choice
from magicbert.stages.compress_supernet import BlockwiseTraining
from magicbert.stages.retrain import ARCHITECTURES_SCHEMA, choose_model

LIMIT = 12_000


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_run(tmp_path_factory.mktemp("select"))
    compress.run(tiny_config(folder))
    compress.run(choosing(folder))
    return folder


def choosing(run: Path, label: str = "", **limits: int) -> CompressConfig:
    section = SelectSection(
        num_candidates=6, num_dev_batches=2, rows_per_batch=4, num_results=3,
        **({"max_parameters": LIMIT, "embedding_size": 8} | limits),
    )  # fmt: skip
    place = RunSection(root=str(run.parent), name=run.name, label=label)
    return CompressConfig(target="select", run=place, select=section)


def record(run: Path, folder: str = "compress") -> dict:
    return read_record(run / folder / "architectures.json", ARCHITECTURES_SCHEMA)


def test_the_chosen_models_keep_the_limit_and_cost_what_they_say(run: Path) -> None:
    written = record(run)
    assert len(written["results"]) == 3
    assert len(written["scored"]) == 6
    assert [one["loss"] for one in written["scored"]] == sorted(
        one["loss"] for one in written["scored"]
    )
    manifest = read_manifest(run / "prepare")
    for one in written["scored"]:
        path = Architecture.parse(one["architecture"])
        sizes = fitted_to(path, ModelSection(embedding_size=8, max_length=manifest.length))
        model = build_supernet(
            SearchSpace.of(path), sizes, manifest.vocab_size, manifest.pad_id, seed=0
        )
        cost = bert_cost_model(model.config, path, manifest.length).cost(path)
        assert (one["parameters"], one["flops"]) == (cost.parameters, cost.flops)
        assert one["parameters"] <= LIMIT


def test_the_sum_of_block_losses_decides_who_is_scored(run: Path) -> None:
    config = dataclasses.replace(tiny_config(run), select=choosing(run).select)
    choice = Choice(config, run / "blocks")
    tables = choice.tables()
    best = choice.selection(tables).best(6)
    sums = sorted(one["block_loss"] for one in record(run)["scored"])
    assert sums == pytest.approx([one.loss for one in best])


def test_scores_are_those_of_the_complete_net(run: Path) -> None:
    """The same net written out by hand: teacher's embeddings, blocks, teacher's head."""
    work = BlockwiseTraining(tiny_config(run))
    blocks = [
        load_block(work.supernet(number), run / "blocks" / f"block-{number}", torch.device("cpu"))
        for number in (1, 2)
    ]
    source = TokenSource(
        run / "prepare", work.config.masking, seed=0, rows_per_step=4, rows_per_micro_batch=4
    )
    one, loss, count = record(run)["results"][0], 0.0, 0
    with torch.no_grad():
        for batch in source.dev_batches(2):
            states, segments = work.teacher.states(batch, (0,))
            hidden = states[0]
            for block, path in zip(blocks, one["blocks"], strict=True):
                width, *names = path.split("-")
                hidden = block.layers[0][width](hidden, segments)
                for layer, name in enumerate(names, start=1):
                    hidden = block.layers[layer][name](hidden, segments)
                hidden = block.leaving[width.removeprefix("w")](hidden)
            predicted = hidden.flatten(0, 1)[batch.predicted_positions]
            logits = work.teacher.model.decoder(work.teacher.model.transform(predicted))
            loss += float(F.cross_entropy(logits, batch.labels, reduction="sum"))
            count += len(batch.labels)
    assert one["loss"] == pytest.approx(loss / count, rel=1e-5)


def test_retraining_takes_architecture_and_sizes(run: Path) -> None:
    place = RunSection(root=str(run.parent), name=run.name)
    architecture, sizes = choose_model(RetrainConfig(run=place, architecture="compressed:2"))
    one = record(run)["results"][1]
    assert str(architecture) == one["architecture"]
    assert sizes.embedding_size == 8
    assert f"w{sizes.hidden_size}" in architecture[-1]
    with pytest.raises(UserError, match=r"has compressed:1\.\.3"):
        choose_model(RetrainConfig(run=place, architecture="compressed:4"))


def test_budgets_stand_side_by_side(run: Path) -> None:
    compress.run(choosing(run, "small", max_parameters=8000))
    small = record(run, "compress-small")["results"][0]
    assert small["parameters"] <= 8000 < record(run)["results"][0]["parameters"]


def test_what_is_refused(run: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no combination of the blocks' paths keeps the limits"):
        compress.run(choosing(run, "none", max_parameters=2000))
    with pytest.raises(UserError, match="run `magicbert compress supernet` first"):
        compress.run(choosing(tmp_path / "other"))
    other = dataclasses.replace(choosing(run, "x"), teacher=str(tmp_path))
    with pytest.raises(UserError, match="no model of magicbert"):
        compress.run(other)
