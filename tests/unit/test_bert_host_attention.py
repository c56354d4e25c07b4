"""Attention with dropout on a CPU: torch's formula, with the encoder's own dropout in it."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from bert_examples import FULL, LENGTH, PACKED, PADDED, config, randomise
from magicbert_kernels.host_dropout import host_dropout

from magicbert.bert.modeling import dropout as encoder_dropout
from magicbert.bert.modeling.host_attention import host_attention
from magicbert.bert.modeling.operators import build_operator
from magicbert.bert.modeling.segments import Segments

IDS = {"full": FULL, "padded": PADDED, "packed": PACKED}


def parts(dtype=torch.float64):
    torch.manual_seed(0)
    return [torch.randn(2, LENGTH, 4, 3, dtype=dtype, requires_grad=True) for _ in range(3)]


@pytest.mark.parametrize("layout", IDS)
def test_without_dropout_it_is_torchs_attention(layout):
    mask, inputs = Segments.of_ids(IDS[layout]).attention_mask, parts()
    ours = host_attention(*inputs, mask, 0.0)
    theirs = F.scaled_dot_product_attention(
        *(part.transpose(1, 2) for part in inputs), attn_mask=mask
    ).transpose(1, 2)
    torch.testing.assert_close(ours, theirs)
    upstream = torch.randn_like(ours)
    gradients = (torch.autograd.grad(y, inputs, upstream) for y in (ours, theirs))
    torch.testing.assert_close(*gradients)


def test_dropout_falls_on_the_weights():
    query, key, value = parts()
    torch.manual_seed(1)
    ours = host_attention(query, key, value, None, 0.5)
    weights = (torch.einsum("bqad,bkad->baqk", query, key) / 3**0.5).softmax(-1)
    torch.manual_seed(1)
    dropped = host_dropout(weights.reshape(-1, LENGTH, LENGTH), 0.5).view_as(weights)
    torch.testing.assert_close(ours, torch.einsum("baqk,bkad->bqad", dropped, value))


@pytest.mark.parametrize("name", ["mha4", "ffn24", "conv3", "conv5x24"])
def test_operators_drop_with_and_without_the_kernels_package(name, monkeypatch):
    """Masks of two generators, but one mean: within six standard errors; and a seed repeats it."""
    torch.manual_seed(2)
    module = randomise(build_operator(name, config(hidden_dropout_prob=0.4))).train()
    segments, hidden = Segments.of_ids(PACKED), torch.randn(2, LENGTH, 16)
    samples = []
    for has_package in (True, False):
        monkeypatch.setattr(encoder_dropout, "HAS_HOST_DROPOUT", has_package)
        runs = [module(hidden, segments).detach() for _ in range(400)]
        samples.append(torch.stack(runs)[:, PACKED > 0])
    ours, theirs = samples
    error = ((ours.var(0) + theirs.var(0)) / 400).sqrt()
    assert ((ours.mean(0) - theirs.mean(0)).abs() <= 6 * error + 1e-6).all()
    assert (ours.var(0) > 0).any()
    monkeypatch.setattr(encoder_dropout, "HAS_HOST_DROPOUT", True)
    repeated = []
    for _ in range(2):
        torch.manual_seed(3)
        repeated.append(module(hidden, segments))
    assert torch.equal(*repeated)
