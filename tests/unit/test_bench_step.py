"""What ``magicbert bench step`` measures: peers of the same function, on the same documents."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from magicbert.bench.step.documents import (
    arrange,
    draw_documents,
    full_lengths,
    paired_lengths,
    transformers_inputs,
)
from magicbert.bench.step.naive import NaiveSupernet
from magicbert.bench.step.plain import PlainStep
from magicbert.bench.step.runners import PathLoss, TorchRunner
from magicbert.bench.step.sizes import MODELS, StepSize, step_size
from magicbert.bench.step.suite import step_cases, step_suite
from magicbert.bench.step.supernet import SupernetStep
from magicbert.bench.step.transformers_bert import transformers_bert
from magicbert.bert.supernet import BertSupernet
from magicbert.config.reading import load_config
from magicbert.config.roots import BenchConfig
from magicbert.config.sections import StepBenchSection
from magicbert.errors import UserError
from magicbert.space import Architecture, SearchSpace

CPU = torch.device("cpu")
SIZE = StepSize(MODELS["tiny"], rows=3, length=24, precision=torch.float32)


def test_each_two_documents_fill_a_row():
    lengths = paired_lengths(SIZE, seed=1)
    assert len(lengths) == 2 * SIZE.rows
    pairs = zip(lengths[::2], lengths[1::2], strict=True)
    assert all(first + second == SIZE.length for first, second in pairs)
    assert min(lengths) >= SIZE.length // 8
    assert full_lengths(SIZE) == [24] * 3


def test_packed_and_padded_batches_hold_the_same_documents():
    documents = draw_documents(paired_lengths(SIZE, 1), seed=2)
    packed, padded = arrange(documents, 2, SIZE.length), arrange(documents, 1, SIZE.length)
    assert (packed.segment_ids > 0).all()
    assert packed.segment_ids.max() == 2
    assert (padded.segment_ids == 0).any()
    for batch in (packed, padded):
        seen = batch.input_ids.flatten()[batch.segment_ids.flatten() > 0]
        assert torch.equal(seen, torch.cat([document.tokens for document in documents]))
        assert torch.equal(batch.labels, torch.cat([d.labels for d in documents]))
        predicted = batch.input_ids.flatten()[batch.predicted_positions]
        assert torch.equal(predicted, torch.cat([d.tokens[d.positions] for d in documents]))
    inputs = transformers_inputs(padded)
    assert int((inputs["labels"] >= 0).sum()) == len(padded.labels)
    assert int(inputs["attention_mask"].sum()) == sum(len(d.tokens) for d in documents)
    assert "attention_mask" not in transformers_inputs(packed)


def test_transformers_computes_what_magicbert_computes_on_packed_rows():
    step = PlainStep(SIZE, "mixed", 0, CPU)
    documents = step.documents(7)
    ours = TorchRunner(PathLoss(step.source), CPU, torch.float32)
    theirs = transformers_bert(SIZE.model, SIZE.length, step.source)
    peer = TorchRunner(theirs, CPU, torch.float32)
    packed = ours.loss(step.packed(documents), step.path)
    assert packed == pytest.approx(peer.loss(**step.padded(documents)), rel=1e-5)
    with torch.no_grad():
        theirs.bert.encoder.layer[0].output.LayerNorm.weight.mul_(1.5)
    assert packed != pytest.approx(peer.loss(**step.padded(documents)), rel=1e-4)


@pytest.mark.parametrize("name", ["mha2", "ffn", "conv3", "conv5"])
@pytest.mark.parametrize("lengths", [[24, 24], [24, 9]])
def test_the_naive_supernet_computes_what_magicbert_computes(name, lengths):
    step = SupernetStep(SIZE, 0, CPU)
    batch = arrange(draw_documents(lengths, 3), 1, SIZE.length)
    path = Architecture((name,) * step.space.num_layers)
    naive = TorchRunner(NaiveSupernet(step.source), CPU, torch.float32).loss(batch, path)
    ours = TorchRunner(PathLoss(step.source), CPU, torch.float32).loss(batch, path)
    assert naive == pytest.approx(ours, rel=1e-5)


def test_a_step_of_a_peer_trains_it():
    source = BertSupernet(SearchSpace((("mha2",), ("ffn",))), SIZE.model.config(24), 0)
    runner = TorchRunner(PathLoss(source), CPU, torch.float32)
    batch, path = arrange(draw_documents([24], 3), 1, 24), Architecture(("mha2", "ffn"))
    before = runner.loss(batch, path)
    for _ in range(20):
        runner.step(batch, path)
    assert runner.loss(batch, path) < before


def test_cases_follow_device_and_options():
    config = load_config(BenchConfig, None, {"target": "step"})
    names = [case.variant["model"] for case in step_cases(config, torch.device("cuda"))]
    assert names[0] == "base"
    assert "large" in names
    assert len(list(step_cases(config, CPU))) == 3
    overrides = {"target": "step", "step.models": "[tiny]", "step.cases": "[full]"}
    (only,) = step_cases(load_config(BenchConfig, None, overrides), CPU)
    assert (only.variant["model"], only.is_replayable) == ("tiny", False)


def test_what_does_not_exist_is_refused():
    with pytest.raises(UserError, match=r"step\.models: 'huge'"):
        step_size("huge", 128, StepBenchSection(), CPU)
    config = load_config(BenchConfig, None, {"target": "step", "step.cases": "[whole]"})
    with pytest.raises(UserError, match=r"step\.cases"):
        step_suite(config)
    sized = step_size("base", 128, StepBenchSection(), torch.device("cuda"))
    assert (sized.rows, sized.precision) == (512, torch.bfloat16)
    asked = dataclasses.replace(StepBenchSection(), precision="fp32")
    assert step_size("base", 128, asked, torch.device("cuda")).precision == torch.float32
