"""Attention over packed rows as sequences: the offsets, the layout, and what calls torch takes.

FlashAttention itself runs on a GPU only. Elsewhere a plain loop over the runs stands in for it, and
torch's own functions are called on tensors without values.
"""

from __future__ import annotations

import dataclasses
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from bert_examples import LENGTH, PACKED, config, randomise, segment_ids
from torch import Tensor

from magicbert.bert.modeling import attention, packed_attention
from magicbert.bert.modeling.operators import build_operator
from magicbert.bert.modeling.segments import Segments, _runs_and_holes, run_offsets

HOLED = torch.tensor([[1, 1, 0, 1, 2, 2, 0, 0], [0, 1, 1, 2, 2, 0, 3, 3]])


def test_offsets_name_every_run_padding_included() -> None:
    ids = segment_ids((2, 3), (4, 1), length=6)
    assert run_offsets(ids, 6).tolist() == [0, 2, 5, 6, 10, 11, 12]


def test_equal_ids_in_two_rows_are_two_runs() -> None:
    assert run_offsets(segment_ids((3,), (3,), length=3), 2).tolist() == [0, 3, 6]


def test_runs_that_are_not_there_are_empty() -> None:
    ids = segment_ids((2, 3), length=6)
    assert run_offsets(ids, 5).tolist() == [0, 2, 5, 6, 6, 6]


@pytest.mark.parametrize(
    ("ids", "runs", "holes"),
    [(PACKED, 6, 0), (HOLED, 10, 1), (segment_ids((4,), length=4), 1, 0)],
)
def test_runs_and_holes_are_counted(ids: Tensor, runs: int, holes: int) -> None:
    assert [int(count) for count in _runs_and_holes(ids)] == [runs, holes]


def with_offsets(ids: Tensor) -> Segments:
    num_runs, _ = _runs_and_holes(ids)
    return dataclasses.replace(Segments.of_ids(ids), run_offsets=run_offsets(ids, int(num_runs)))


def attention_of_runs(
    query: Tensor, key: Tensor, value: Tensor, offsets: Tensor, *others: object
) -> Tensor:
    """What torch's varlen_attn returns, run by run."""
    mixed = torch.empty_like(query)
    for start, end in pairwise(offsets.tolist()):
        parts = (part[start:end].transpose(0, 1) for part in (query, key, value))
        mixed[start:end] = F.scaled_dot_product_attention(*parts).transpose(0, 1)
    return mixed


def test_runs_give_what_the_mask_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    module = randomise(build_operator("mha4", config())).eval()
    hidden = torch.randn(2, LENGTH, 16, generator=torch.Generator().manual_seed(0))
    masked = module(hidden, Segments.of_ids(PACKED))
    monkeypatch.setattr(packed_attention, "varlen_attn", attention_of_runs)
    monkeypatch.setattr(attention, "fits_packed_attention", lambda query: True)
    for segments in (
        with_offsets(PACKED),
        with_offsets(PACKED[[1, 0, 1]]).select(torch.tensor([1, 2])),
    ):
        torch.testing.assert_close(module(hidden, segments), masked)


@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_torch_takes_the_call_and_gives_gradients(dropout: float) -> None:
    fused = torch.empty(2, 16, 3, 4, 8, device="meta", dtype=torch.bfloat16, requires_grad=True)
    offsets = torch.empty(6, dtype=torch.int32, device="meta")
    mixed = packed_attention.packed_attention(*fused.unbind(2), offsets, dropout)
    assert mixed.shape == (2, 16, 4, 8)
    (gradient,) = torch.autograd.grad(mixed.sum(), fused)
    assert gradient.shape == fused.shape


def test_a_cpu_uses_the_mask() -> None:
    query = torch.empty(2, 16, 4, 8, dtype=torch.bfloat16)
    assert not packed_attention.fits_packed_attention(query)
    assert Segments.of_ids(PACKED).run_offsets is None


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_on_a_gpu_runs_give_what_the_mask_gives() -> None:
    ids = segment_ids((100, 29, 71), (3, 1, 150), length=200).cuda()
    module = build_operator("mha4", config(hidden_size=256)).cuda().bfloat16().eval()
    hidden = torch.randn(2, 200, 256, device="cuda", dtype=torch.bfloat16)
    segments = Segments.of_ids(ids)
    query = torch.empty(2, 200, 4, 64, device="cuda", dtype=torch.bfloat16)
    assert segments.run_offsets is not None
    assert packed_attention.fits_packed_attention(query)
    masked = module(hidden, dataclasses.replace(segments, run_offsets=None))
    torch.testing.assert_close(module(hidden, segments), masked, rtol=2e-2, atol=2e-2)
    module.train()
    module(hidden.requires_grad_(), segments).float().square().sum().backward()
    assert hidden.grad is not None
    assert hidden.grad.isfinite().all()
