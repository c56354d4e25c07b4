"""A training step asks the device for no value: the host runs ahead of it.

On a GPU torch itself reports any wait.
"""

from __future__ import annotations

import pytest
import torch
from bert_examples import FULL, PACKED, PADDED, batch, config
from magicbert_kernels.linear_cross_entropy.chunks import forward_chunked
from no_waiting import no_waiting

from magicbert.bert.objectives.mlm import MaskedLanguageModeling
from magicbert.bert.supernet import BertSupernet
from magicbert.config.sections import AlignmentSection
from magicbert.space import Architecture, SearchSpace
from magicbert.training.module import StepPlan, TrainingModule
from magicbert.training.path_sparse.adamw import SparseAdamW
from magicbert.training.path_sparse.groups import parameter_groups
from magicbert.training.path_sparse.replicated import PathSparseReplicatedOptimizer

PATH = Architecture(("mha4", "ffn24", "conv3", "conv5x24"))
ANCHOR = Architecture(("ffn24", "ffn24", "ffn24", "mha4"))
SPACE = SearchSpace(tuple(tuple(sorted({a, b})) for a, b in zip(PATH, ANCHOR, strict=True)))


def step_of(device: torch.device, *, aligned: bool):
    """Returns a function that makes a whole step on a batch."""
    supernet = BertSupernet(SPACE, config(hidden_dropout_prob=0.1), seed=0)
    module = TrainingModule(supernet, MaskedLanguageModeling(), AlignmentSection(enabled=aligned))
    module.to(device).train()
    rule = SparseAdamW(
        parameter_groups(supernet, 0.01), lr=1e-3, betas=(0.9, 0.98), eps=1e-6, policy="path-sparse"
    )
    # Without clipping: on a CPU, where that costs nothing, a norm is looked at to save a pass.
    optimizer = PathSparseReplicatedOptimizer(
        rule, 0.0, {"dynamic_scaling": False, "static_loss_scale": 1.0, "dynamic_loss_args": None}
    )

    def step(given):
        objective = module.objective
        plan = StepPlan(
            0,
            PATH,
            ANCHOR if aligned else None,
            objective.count(given),
            objective.num_tokens(given),
        )
        optimizer.begin_step(PATH)
        loss, *_ = module(given, plan)
        loss.backward()
        optimizer.backward_epilogue()
        optimizer.step()
        return loss

    return step


@pytest.mark.parametrize("ids", [FULL, PADDED, PACKED], ids=["full", "padded", "packed"])
@pytest.mark.parametrize("aligned", [False, True])
def test_a_step_reads_no_value(ids, aligned):
    given, step = batch(ids), step_of(torch.device("cpu"), aligned=aligned)
    step(given)  # moments are made at the first
    with no_waiting():
        loss = step(given)
    assert loss.isfinite()


def test_the_head_reads_no_value():
    """It is one operator to the mode above; here its inside is looked at."""
    torch.manual_seed(0)
    hidden, weight, bias = torch.randn(9, 8), torch.randn(100, 8), torch.randn(100)
    labels = torch.randint(100, (9,))
    with no_waiting():
        loss, *_ = forward_chunked(hidden, weight, bias, labels, True)
    assert loss.isfinite()


@pytest.mark.parametrize(
    "ask",
    [
        lambda x: x.sum().item(),
        lambda x: bool(x.any()),
        lambda x: x[x > 0],
        lambda x: x.nonzero(),
        lambda x: x.tolist(),
    ],
)
def test_the_check_notices(ask):
    with no_waiting(), pytest.raises(AssertionError):
        ask(torch.ones(3))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("ids", [FULL, PADDED, PACKED], ids=["full", "padded", "packed"])
def test_a_step_on_a_gpu_waits_for_nothing(ids):
    device = torch.device("cuda")
    given, step = batch(ids).to(device), step_of(device, aligned=True)
    step(given)
    torch.cuda.set_sync_debug_mode("error")
    try:
        loss = step(given)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert loss.isfinite()
