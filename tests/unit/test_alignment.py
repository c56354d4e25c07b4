"""MAGIC-A's loss on the toy tenant: a mean squared error whose gradient spares the anchor."""

from __future__ import annotations

import pytest
import torch
from magicbert_kernels.alignment_loss import alignment_sums_reference
from toy_tenant import ToySource, ToySupernet, toy_space

from magicbert.errors import UserError
from magicbert.space import Architecture
from magicbert.supernet.alignment import (
    alignment_backend,
    alignment_sums,
    combine_blocks,
    sums_gradient,
)

ANCHOR = Architecture(("small", "large", "middle"))
SAMPLE = Architecture(("small", "small", "large"))


def test_sums_over_positions_give_each_block_its_mse():
    torch.manual_seed(0)
    outputs = [torch.randn(4, 6, 8) for _ in range(3)]
    anchors = [torch.randn(4, 6, 8) for _ in range(3)]
    valid = torch.rand(4, 6) < 0.7
    sums = alignment_sums(outputs, anchors, valid, "torch")
    for block, (output, anchor) in enumerate(zip(outputs, anchors, strict=True)):
        mse = torch.nn.functional.mse_loss(output[valid], anchor[valid])
        torch.testing.assert_close(sums[block] / valid.sum(), mse)
    whole = alignment_sums(outputs, anchors, None, "torch")
    torch.testing.assert_close(whole[1] / 24, torch.nn.functional.mse_loss(outputs[1], anchors[1]))


def test_sums_of_micro_batches_add_up():
    torch.manual_seed(0)
    output, anchor = torch.randn(6, 5, 8), torch.randn(6, 5, 8)
    valid = torch.rand(6, 5) < 0.5
    whole = alignment_sums([output], [anchor], valid, "torch")
    parts = sum(
        alignment_sums([output[i : i + 2]], [anchor[i : i + 2]], valid[i : i + 2], "torch")
        for i in (0, 2, 4)
    )
    torch.testing.assert_close(parts, whole)


def test_gradient_reaches_the_sampled_path_only():
    """Both paths hold ``small`` in layer 0; its gradient must come through the sample alone."""
    torch.manual_seed(0)
    supernet = ToySupernet(toy_space())
    (batch,) = ToySource(rows=8).dev_batches(1)
    anchor_outputs = supernet(batch, ANCHOR, (1, 2, 3)).block_outputs
    outputs = supernet(batch, SAMPLE, (1, 2, 3)).block_outputs
    alignment_sums(outputs, anchor_outputs, None, "torch").sum().backward()
    detached = [tensor.detach() for tensor in anchor_outputs]
    shared = supernet.operator(0, "small").inner.weight
    kept = shared.grad.clone()
    supernet.zero_grad()
    outputs = supernet(batch, SAMPLE, (1, 2, 3)).block_outputs
    sum(((o - a) ** 2).mean(-1).sum() for o, a in zip(outputs, detached, strict=True)).backward()
    torch.testing.assert_close(kept, shared.grad)
    assert supernet.operator(1, "large").inner.weight.grad is None
    assert supernet.operator(2, "large").inner.weight.grad.abs().sum() > 0


def test_a_path_is_aligned_to_itself():
    supernet = ToySupernet(toy_space())
    (batch,) = ToySource(rows=8).dev_batches(1)
    one, two = (supernet(batch, ANCHOR, (1, 3)).block_outputs for _ in range(2))
    assert alignment_sums(one, two, None, "torch").tolist() == [0.0, 0.0]


def test_nan_at_an_invalid_position_harms_neither_sum_nor_gradient():
    output = torch.randn(2, 3, 4)
    valid = torch.tensor([[True, True, False], [True, False, False]])
    output[~valid] = float("nan")
    output.requires_grad_()
    anchor = torch.full((2, 3, 4), float("inf"))
    anchor[valid] = 0.0
    sums = alignment_sums([output], [anchor], valid, "torch")
    sums.sum().backward()
    assert torch.isfinite(sums).all()
    assert (output.grad[~valid] == 0).all()
    assert (output.grad[valid] != 0).all()


def test_forms():
    sums = torch.tensor([1.0, 2.0, 6.0])
    assert combine_blocks(sums, "mean") == 3.0
    assert combine_blocks(sums, "sum") == 9.0


@pytest.mark.parametrize("form", ["mean", "sum"])
@pytest.mark.parametrize("scale", [1.0, 65536.0, 3.0])
def test_the_gradient_of_the_sums_is_known_beforehand(form, scale):
    """To within what the kernel takes for the same (2^-20)."""
    sums = torch.rand(7, requires_grad=True)
    (0.3 * combine_blocks(sums / 4099, form) * scale).backward()
    known = sums_gradient(form, 7, 4099, 0.3, scale)
    assert ((sums.grad - known).abs() <= 2**-21 * known).all()


def test_mismatched_blocks_are_refused():
    one, other = torch.zeros(2, 3, 4), torch.zeros(2, 3, 5)
    with pytest.raises(ValueError, match="blocks differ"):
        alignment_sums([one], [other], None, "torch")
    with pytest.raises(ValueError, match="1 outputs and 0 anchors"):
        alignment_sums([one], [], None, "torch")
    with pytest.raises(ValueError, match="valid must be bool"):
        alignment_sums([one], [one], torch.ones(2, 3), "torch")


def test_backend_is_chosen_by_name(monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    cpu = torch.device("cpu")
    assert alignment_backend("auto", cpu) == "torch"
    assert alignment_backend("torch", cpu) == "torch"
    with pytest.raises(UserError, match=r"training\.backend.*triton.*'cpu'.*auto or torch"):
        alignment_backend("triton", cpu)


@pytest.mark.parametrize("is_masked", [False, True])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_the_torch_backend_is_the_reference(dtype, is_masked):
    generator = torch.Generator().manual_seed(3)
    outputs = [torch.randn(5, 7, 24, generator=generator).to(dtype) for _ in range(3)]
    anchors = [torch.randn(5, 7, 24, generator=generator).to(dtype) for _ in range(3)]
    valid = torch.rand(5, 7, generator=generator) < 0.6 if is_masked else None
    if valid is not None:
        outputs[0][~valid], anchors[1][~valid] = torch.nan, torch.inf
    found = []
    for function in (alignment_sums_reference, lambda *given: alignment_sums(*given, "torch")):
        leaves = [output.clone().requires_grad_() for output in outputs]
        sums = function(leaves, anchors, valid)
        factors = torch.tensor([0.5, 1.0, 3.0], dtype=sums.dtype)
        found.append((sums.detach(), *torch.autograd.grad((sums * factors).sum(), leaves)))
    for ours, reference in zip(*found[::-1], strict=True):
        assert ours.dtype == reference.dtype
        torch.testing.assert_close(ours, reference)


def test_the_torch_backend_takes_any_shape_and_nothing():
    for shape in ((8,), (0, 8), (3, 0, 8), (2, 3, 1)):
        leaf = torch.ones(shape, requires_grad=True)
        (total,) = alignment_sums([leaf], [torch.zeros(shape)], None, "torch")
        assert float(total) == pytest.approx(leaf.numel() / shape[-1])
        total.backward()
        assert torch.equal(leaf.grad, torch.full(shape, 2.0 / shape[-1]))
