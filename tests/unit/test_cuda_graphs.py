"""``training.cuda_graphs`` without a GPU: all but the capture itself, then, on a GPU, all of it.

On a CPU the recorder is one that runs the function again and copies its results to where they
stood: what a replay does to memory, at other speed.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from small_supernet import FORMS, NAMES, SPACE, batch, build
from toy_tenant import ToyObjective, ToySource, ToySupernet, toy_space

from magicbert.bert.modeling.segments import Segments
from magicbert.bert.objectives.mlm import MaskedLanguageModeling
from magicbert.config.sections import TrainingSection
from magicbert.errors import UserError
from magicbert.space import Architecture
from magicbert.supernet.scoring import score
from magicbert.training.cuda_graphs import CudaRecorder, check_graphs, recorded_operators
from magicbert.training.static_contexts import MOST_FORMS, StaticContexts, form_of

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


class RunningAgain:
    """Replays by running again, into the same memory."""

    num_recorded = 0

    def warm_up(self, function):
        function()

    def record(self, function):
        results = function()
        RunningAgain.num_recorded += 1

        def replay():
            for place, value in zip(results, function(), strict=True):
                if place is not None:
                    place.copy_(value)

        return results, replay


def recorder(layer):
    return CudaRecorder(DEVICE) if DEVICE.type == "cuda" else RunningAgain()


def loss_of(supernet, path, number=0, form="packed and padded"):
    on_device = batch(number, form).to(DEVICE)
    return MaskedLanguageModeling()(supernet, on_device, path).loss_sum


def gradients(supernet):
    found = {name: p.grad for name, p in supernet.named_parameters() if p.grad is not None}
    return {name: gradient.clone() for name, gradient in found.items()}


@pytest.mark.parametrize("num_micro_batches", [1, 3])
def test_random_paths_train_as_plain_operators_do(num_micro_batches):
    """Kinds of batches take turns; gradients add up over micro-batches."""
    plain, recorded = (build(dropout=0.0).to(DEVICE).train() for _ in range(2))
    generator = np.random.default_rng(0)
    with recorded_operators(recorded, recorder):
        for step in range(10):
            path = SPACE.sample(generator)
            for supernet in (plain, recorded):
                supernet.zero_grad()
                for number in range(num_micro_batches):
                    loss_of(
                        supernet, path, 10 * step + number, FORMS[(step + number) % 4]
                    ).backward()
            expected, found = gradients(plain), gradients(recorded)
            assert expected.keys() == found.keys()
            for name, gradient in expected.items():
                torch.testing.assert_close(found[name], gradient, rtol=1e-4, atol=1e-5)


def test_an_operator_is_recorded_once_for_each_kind_of_batch():
    RunningAgain.num_recorded = 0
    supernet, path = build(dropout=0.0).to(DEVICE).train(), Architecture(("ffn", "conv3") * 2)
    operators = [vars(supernet.operator(layer, name)) for layer, name in enumerate(path)]
    with recorded_operators(supernet, recorder):
        for number in range(6):
            loss_of(supernet, path, number, ("padded", "packed")[number % 2]).backward()
        assert [len(op["forward"].__func__.recordings) for op in operators] == [2] * 4
        idle = supernet.operator(0, "mha2").forward.__func__
        assert not idle.recordings
    assert all("forward" not in operator for operator in operators)


def test_an_anchor_and_evaluation_run_plainly():
    supernet, path = build().to(DEVICE), Architecture(("ffn",) * 4)
    with recorded_operators(supernet, recorder):
        one = score(supernet, MaskedLanguageModeling(), [batch(0, "padded")], path)
        supernet.train()
        with torch.no_grad():
            loss_of(supernet, path)
        assert not supernet.operator(0, "ffn").forward.__func__.recordings
        loss_of(supernet, path).backward()
        two = score(supernet, MaskedLanguageModeling(), [batch(0, "padded")], path)
    assert one == two


def test_watched_modules_run_plainly():
    """The examination of a bad step hangs hooks on everything."""
    supernet, path = build().to(DEVICE).train(), Architecture(("ffn",) * 4)
    seen = []
    with recorded_operators(supernet, recorder):
        loss_of(supernet, path).backward()
        inner = supernet.operator(2, "ffn").norm
        hook = inner.register_forward_hook(lambda *_: seen.append(1))
        loss_of(supernet, path).backward()
        hook.remove()
        loss_of(supernet, path).backward()
    assert seen == [1]


@pytest.mark.parametrize("other", ["ffn", "conv3"])
def test_a_backward_after_another_forward_is_refused(other):
    """Of the same operator, or of another one in the same layer: they share memory."""
    supernet = build(dropout=0.0).to(DEVICE).train()
    with recorded_operators(supernet, recorder):
        late = loss_of(supernet, Architecture(("ffn",) * 4))
        loss_of(supernet, Architecture((other,) * 4)).backward()
        with pytest.raises(RuntimeError, match="backward must run before the next forward"):
            late.backward()


def test_weights_that_moved_are_recorded_anew():
    supernet, path = build(dropout=0.0).to(DEVICE).train(), Architecture(("ffn",) * 4)
    with recorded_operators(supernet, recorder):
        before = loss_of(supernet, path)
        before.backward()
        weight = supernet.operator(0, "ffn").norm.weight
        weight.data = weight.data.clone() * 2
        after = loss_of(supernet, path)
        assert len(supernet.operator(0, "ffn").forward.__func__.recordings) == 2
    assert after.item() != before.item()
    torch.testing.assert_close(loss_of(supernet, path), after)


def test_a_tenant_without_a_context_is_recorded_too():
    torch.manual_seed(0)
    supernet = ToySupernet(toy_space()).to(DEVICE).train()
    (toy_batch,) = ToySource(rows=8).dev_batches(1)
    path = Architecture(("small", "large", "middle"))
    expected = ToyObjective()(supernet, toy_batch.to(DEVICE), path).loss_sum
    with recorded_operators(supernet, recorder):
        for _ in range(2):
            loss = ToyObjective()(supernet, toy_batch.to(DEVICE), path).loss_sum
            loss.backward()
    torch.testing.assert_close(loss, expected)


def test_forms_are_told_apart_and_limited():
    contexts = StaticContexts()
    ids = torch.tensor([[1, 1, 2, 2, 0]])
    packed, other = Segments.of_ids(ids), Segments.of_ids(ids.roll(1, 1).flip(1).sort(1).values)
    static = contexts.of(packed)
    assert contexts.of(packed) is static
    assert static.epoch == 1
    assert static.value.ids is not packed.ids
    assert form_of(packed) == form_of(replace(packed))
    for length in range(6, 6 + MOST_FORMS - 1):
        assert contexts.of(Segments.of_ids(torch.ones(1, length).long())) is not None
    assert contexts.of(Segments.of_ids(torch.ones(1, 50).long())) is None
    assert contexts.of(Segments.of_ids(ids)) is static
    assert form_of(other) != form_of(Segments.full(5, torch.device("cpu")))


def test_what_cannot_work_is_refused():
    with pytest.raises(UserError, match=r"training\.cuda_graphs.*need a CUDA device.*'cpu'"):
        check_graphs(torch.device("cpu"))
    problems = list(TrainingSection(cuda_graphs=True, zero_stage=3, compile=True).validate())
    assert [problem.split(":")[0] for problem in problems] == ["cuda_graphs", "cuda_graphs"]
    assert not list(TrainingSection(cuda_graphs=True).validate())


@pytest.mark.skipif(DEVICE.type != "cuda", reason="no CUDA device")
def test_a_replay_draws_new_dropout_and_a_seed_decides_it():
    supernet, path = build(dropout=0.3).to(DEVICE).train(), Architecture(NAMES)
    losses = []
    with recorded_operators(supernet, recorder):
        for seed in (0, 0, 1):
            torch.manual_seed(seed)
            loss = loss_of(supernet, path)
            loss.backward()
            losses.append(loss.item())
    assert losses[0] == losses[1] != losses[2]


@pytest.mark.skipif(DEVICE.type != "cuda", reason="no CUDA device")
def test_a_replayed_operator_launches_no_kernel_of_its_own():
    from torch.profiler import ProfilerActivity, profile

    supernet, path = build(dropout=0.0).to(DEVICE).train(), Architecture(("ffn",) * 4)
    with recorded_operators(supernet, recorder):
        loss_of(supernet, path).backward()
        with profile(activities=[ProfilerActivity.CPU]) as profiler:
            loss_of(supernet, path).backward()
    names = {event.key for event in profiler.key_averages()}
    assert "cudaGraphLaunch" in names
    assert "aten::gelu" not in names
