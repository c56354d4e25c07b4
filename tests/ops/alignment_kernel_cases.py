"""The Triton kernel against an fp64 reference; run by test_alignment_kernel.py.

On the CPU it needs TRITON_INTERPRET=1 before triton is imported, hence a process of its own.
Tolerance: at most twice the error that plain PyTorch makes when it computes in the input's type.
"""

from __future__ import annotations

import os

import pytest
import torch
from magicbert_kernels.alignment_loss import alignment_sums, alignment_sums_reference
from magicbert_kernels.alignment_loss.kernel import (
    launch_forward,
    launch_rescale,
    num_programs,
    tile_sizes,
)
from magicbert_kernels.backend import resolve_backend

DEVICE = torch.device("cpu" if os.environ.get("TRITON_INTERPRET") == "1" else "cuda")
TYPES = [torch.float32, torch.bfloat16, torch.float16]
# Rounding of one fp32 result: the floor where the plain computation happens to be exact.
FLOOR = 4 * torch.finfo(torch.float32).eps


def blocks(shape, dtype, count=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator).to(DEVICE, dtype) for _ in range(count)]


def mask(shape, share=0.6):
    generator = torch.Generator().manual_seed(9)
    return (torch.rand(shape, generator=generator) < share).to(DEVICE)


def naive(outputs, anchors, valid):
    """What one would write without thinking of precision."""
    errors = [(o - a).square().mean(-1) for o, a in zip(outputs, anchors, strict=True)]
    return torch.stack([(e if valid is None else e * valid).sum() for e in errors])


def with_gradients(function, outputs, anchors, valid):
    leaves = [output.detach().clone().requires_grad_() for output in outputs]
    sums = function(leaves, anchors, valid)
    weights = torch.linspace(0.5, 2.0, len(outputs), device=DEVICE, dtype=sums.dtype)
    gradients = torch.autograd.grad((sums * weights).sum(), leaves)
    return sums.detach(), gradients


def triton_sums(outputs, anchors, valid):
    return alignment_sums(outputs, anchors, valid, "triton")


def largest(values):
    return max((v.double().abs().max().item() for v in values if v.numel()), default=0.0)


def assert_within_twice_naive(outputs, anchors, valid):
    exact = with_gradients(
        alignment_sums_reference,
        [o.double() for o in outputs], [a.double() for a in anchors], valid,
    )  # fmt: skip
    ours = with_gradients(triton_sums, outputs, anchors, valid)
    plain = with_gradients(naive, outputs, anchors, valid)
    assert ours[0].dtype == torch.float32
    assert all(g.dtype == o.dtype for g, o in zip(ours[1], outputs, strict=True))
    scale = largest([exact[0]])
    assert largest([ours[0] - exact[0]]) <= 2 * largest([plain[0] - exact[0]]) + FLOOR * scale
    our_error = largest([g - e for g, e in zip(ours[1], exact[1], strict=True)])
    plain_error = largest([g - e for g, e in zip(plain[1], exact[1], strict=True)])
    # The interpreter cuts bf16 off where hardware rounds: up to one unit in the last place.
    one_unit = torch.finfo(outputs[0].dtype).eps * largest(exact[1])
    assert our_error <= max(2 * plain_error, one_unit)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 7, 5), (2, 33, 96), (2, 5, 1100), (37, 24)])
@pytest.mark.parametrize("is_masked", [False, True])
def test_forward_and_gradients(shape, dtype, is_masked):
    valid = mask(shape[:-1]) if is_masked else None
    assert_within_twice_naive(blocks(shape, dtype), blocks(shape, dtype, seed=1), valid)


@pytest.mark.parametrize("dtype", TYPES)
def test_close_blocks_keep_their_small_difference(dtype):
    """Late in training the two paths nearly agree: squares of small differences must survive."""
    anchors = blocks((4, 16, 32), dtype)
    outputs = [(a.float() * (1 + 2**-6)).to(dtype) for a in anchors]
    assert_within_twice_naive(outputs, anchors, None)


def test_non_contiguous_inputs():
    outputs = [b.transpose(0, 1) for b in blocks((9, 4, 20), torch.float32)]
    anchors = [b[..., ::2] for b in blocks((4, 9, 40), torch.float32, seed=1)]
    valid = mask((9, 4)).t()
    assert not outputs[0].is_contiguous()
    assert not anchors[0].is_contiguous()
    assert_within_twice_naive(outputs, anchors, valid)


@pytest.mark.parametrize("count", [1, 2, 24])
def test_any_number_of_blocks_is_one_launch(count):
    outputs, anchors = blocks((3, 5, 8), torch.float32, count), blocks((3, 5, 8), torch.float32)
    outputs = [o + index for index, o in enumerate(outputs)]
    assert_within_twice_naive(outputs, [anchors[0]] * count, mask((3, 5)))


@pytest.mark.parametrize("shape", [(4, 6, 8), (0, 6, 8)])
def test_nothing_valid(shape):
    outputs = [b.requires_grad_() for b in blocks(shape, torch.float32)]
    valid = torch.zeros(shape[:-1], dtype=torch.bool, device=DEVICE)
    sums = triton_sums(outputs, blocks(shape, torch.float32, seed=1), valid)
    sums.sum().backward()
    assert sums.tolist() == [0.0, 0.0, 0.0]
    assert all((output.grad == 0).all() for output in outputs)


def test_nan_where_not_valid_is_never_read():
    outputs, anchors = blocks((4, 6, 8), torch.bfloat16), blocks((4, 6, 8), torch.bfloat16, seed=1)
    valid = mask((4, 6))
    clean = with_gradients(triton_sums, outputs, anchors, valid)
    for tensor in (*outputs, *anchors):
        tensor[~valid] = float("nan")
    poisoned = with_gradients(triton_sums, outputs, anchors, valid)
    assert torch.equal(clean[0], poisoned[0])
    assert all(torch.equal(a, b) for a, b in zip(clean[1], poisoned[1], strict=True))
    assert all((gradient[~valid] == 0).all() for gradient in poisoned[1])


@pytest.mark.parametrize("shape", [(13, 5), (70, 130), (3, 1500), (9000, 3)])
def test_every_element_of_the_outputs_is_written_and_no_other(shape):
    """Buffers full of NaN, with a guard behind them."""
    outputs, anchors = blocks(shape, torch.float32), blocks(shape, torch.float32, seed=1)
    valid = mask(shape[:1])
    sizes = (3, num_programs(*shape))
    sums_buffer = torch.full((sizes[0] * sizes[1] + 64,), float("nan"), device=DEVICE)
    partial_sums = sums_buffer[:-64].view(sizes)
    size = shape[0] * shape[1]
    buffers = [torch.full((size + 64,), float("nan"), device=DEVICE) for _ in range(3)]
    gradients = [buffer[:size].view(shape) for buffer in buffers]
    launch_forward(outputs, anchors, valid, partial_sums, gradients)
    assert torch.isfinite(partial_sums).all()
    assert torch.isnan(sums_buffer[-64:]).all()
    assert all(torch.isfinite(gradient).all() for gradient in gradients)
    assert all(torch.isnan(buffer[size:]).all() for buffer in buffers)
    before = [gradient.clone() for gradient in gradients]
    launch_rescale(gradients, torch.tensor([1.0, -2.0, 0.0], device=DEVICE), 1.0)
    for gradient, old, factor in zip(gradients, before, (1.0, -2.0, 0.0), strict=True):
        assert torch.equal(gradient, old * factor)
    assert all(torch.isnan(buffer[size:]).all() for buffer in buffers)


def test_inputs_are_left_alone_and_anchors_get_no_gradient():
    outputs = [b.requires_grad_() for b in blocks((3, 5, 8), torch.float32)]
    anchors = [b.requires_grad_() for b in blocks((3, 5, 8), torch.float32, seed=1)]
    before = [tensor.detach().clone() for tensor in (*outputs, *anchors)]
    triton_sums(outputs, anchors, mask((3, 5))).sum().backward()
    after = [tensor.detach() for tensor in (*outputs, *anchors)]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert all(anchor.grad is None for anchor in anchors)
    assert all(output.grad is not None for output in outputs)


def test_double_precision_is_refused():
    outputs = blocks((3, 5, 8), torch.float64)
    with pytest.raises(ValueError, match="use torch for fp64"):
        triton_sums(outputs, outputs, None)


def test_the_same_bits_every_time():
    outputs, anchors = (
        blocks((5, 40, 64), torch.float32),
        blocks((5, 40, 64), torch.float32, seed=1),
    )
    assert torch.equal(triton_sums(outputs, anchors, None), triton_sums(outputs, anchors, None))


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("upstream", [2.0**-9 / 3, 2.0**16 / 77])
def test_gradients_for_the_factor_known_beforehand_are_handed_out_as_they_are(dtype, upstream):
    """Rounded once: no scaling can be better than the reference's own last rounding."""
    outputs, anchors = blocks((4, 6, 96), dtype), blocks((4, 6, 96), dtype, seed=1)
    leaves = [output.clone().requires_grad_() for output in outputs]
    sums = alignment_sums(leaves, anchors, None, "triton", expected_gradient=upstream)
    gradients = torch.autograd.grad(sums.sum() * upstream, leaves)
    for gradient, output, anchor in zip(gradients, outputs, anchors, strict=True):
        exact = (output.double() - anchor.double()) * (2 * upstream / 96)
        unit = torch.finfo(dtype).eps * exact.abs() + torch.finfo(dtype).tiny
        assert ((gradient.double() - exact).abs() <= unit).all()


@pytest.mark.parametrize("expected", [0.0, 1.0, -3.0])
@pytest.mark.parametrize("upstream", [0.0, 0.37])
def test_any_other_factor_is_right_as_well(expected, upstream):
    outputs, anchors = blocks((4, 6, 8), torch.float32), blocks((4, 6, 8), torch.float32, seed=1)
    leaves = [output.clone().requires_grad_() for output in outputs]
    sums = alignment_sums(leaves, anchors, None, "triton", expected_gradient=expected)
    gradients = torch.autograd.grad(sums.sum() * upstream, leaves)
    for gradient, output, anchor in zip(gradients, outputs, anchors, strict=True):
        torch.testing.assert_close(gradient, (output - anchor) * (2 * upstream / 8))


def test_a_gradient_that_is_not_finite_spoils_what_it_should():
    (leaf,) = (block.requires_grad_() for block in blocks((4, 6, 8), torch.float32, count=1))
    sums = triton_sums([leaf], blocks((4, 6, 8), torch.float32, 1, seed=1), None)
    (gradient,) = torch.autograd.grad(sums.sum() * float("nan"), [leaf])
    assert torch.isnan(gradient).all()


def test_gradients_are_handed_out_once():
    """A second backward would scale what the first has scaled."""
    (leaf,) = (block.requires_grad_() for block in blocks((4, 6, 8), torch.float32, count=1))
    sums = triton_sums([leaf], blocks((4, 6, 8), torch.float32, 1, seed=1), None)
    torch.autograd.grad(sums.sum(), [leaf], retain_graph=True)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        torch.autograd.grad(sums.sum(), [leaf])


def test_no_gradient_is_written_where_none_is_asked_for():
    outputs, anchors = blocks((4, 6, 8), torch.float32), blocks((4, 6, 8), torch.float32, seed=1)
    leaves = [output.clone().requires_grad_() for output in outputs]
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        with_gradient = triton_sums(leaves, anchors, None)
        assert len(saved) == 3
        with torch.no_grad():
            without = triton_sums(leaves, anchors, None)
        plain = triton_sums(outputs, anchors, None)
    assert len(saved) == 3
    assert not without.requires_grad
    assert torch.equal(with_gradient, without)
    assert torch.equal(without, plain)


def test_one_position_leaves_the_gradient_of_the_others_alone():
    outputs, anchors = blocks((4, 6, 40), torch.bfloat16), blocks((4, 6, 40), torch.bfloat16, 3, 1)
    _, before = with_gradients(triton_sums, outputs, anchors, None)
    for output in outputs:
        output[2, 3] += 1
    _, after = with_gradients(triton_sums, outputs, anchors, None)
    for one, other in zip(before, after, strict=True):
        is_same = (one == other).all(-1)
        assert not is_same[2, 3]
        assert is_same.sum() == is_same.numel() - 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_compiled_code_gives_the_same(dtype):
    outputs, anchors = blocks((4, 6, 40), dtype), blocks((4, 6, 40), dtype, seed=1)
    valid = mask((4, 6))

    def loss(*tensors):
        return triton_sums(tensors[:3], tensors[3:], valid) * 2

    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    plain = with_gradients(lambda o, a, _: loss(*o, *a), outputs, anchors, None)
    inside = with_gradients(lambda o, a, _: compiled(*o, *a), outputs, anchors, None)
    assert torch.equal(plain[0], inside[0])
    assert all(torch.equal(a, b) for a, b in zip(plain[1], inside[1], strict=True))


def test_autocast_and_deterministic_mode_change_nothing():
    outputs, anchors = blocks((4, 6, 40), torch.float32), blocks((4, 6, 40), torch.float32, seed=1)
    plain = with_gradients(triton_sums, outputs, anchors, mask((4, 6)))
    torch.use_deterministic_algorithms(True)
    try:
        with torch.autocast(DEVICE.type, torch.bfloat16):
            inside = with_gradients(triton_sums, outputs, anchors, mask((4, 6)))
    finally:
        torch.use_deterministic_algorithms(False)
    assert torch.equal(plain[0], inside[0])
    assert all(torch.equal(a, b) for a, b in zip(plain[1], inside[1], strict=True))


@pytest.mark.parametrize(("num_features", "tile"), [(768, 256), (96, 32), (1024, 1024), (5, 8)])
def test_rows_that_are_no_power_of_two_waste_no_lanes(num_features, tile):
    assert tile_sizes(num_features)[1] == tile


@pytest.mark.skipif(DEVICE.type != "cuda", reason="no CUDA device")
def test_a_replayed_graph_sees_new_values():
    outputs, anchors = (blocks((64, 128, 256), torch.bfloat16, seed=s) for s in (0, 1))
    leaves = [output.clone().requires_grad_() for output in outputs]
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        for _ in range(3):
            torch.autograd.grad(triton_sums(leaves, anchors, None).sum(), leaves)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        sums = triton_sums(leaves, anchors, None)
        gradients = torch.autograd.grad(sums.sum(), leaves)
    with torch.no_grad():
        for leaf, fresh in zip(leaves, blocks((64, 128, 256), torch.bfloat16, seed=5), strict=True):
            leaf.copy_(fresh)
    graph.replay()
    expected = with_gradients(lambda *a: triton_sums(*a), leaves, anchors, None)[0]
    assert torch.equal(sums, expected)
    assert torch.isfinite(gradients[0]).all()


@pytest.mark.skipif(DEVICE.type != "cuda", reason="no CUDA device")
def test_more_than_two_to_the_31_elements():
    shape = ((1 << 21) + 5, 1024)
    output = torch.zeros(shape, dtype=torch.bfloat16, device=DEVICE)
    anchor = torch.zeros_like(output)
    output[-1] = 2.0
    output.requires_grad_()
    sums = triton_sums([output], [anchor], None)
    (gradient,) = torch.autograd.grad(sums.sum(), [output])
    assert sums.tolist() == [4.0]
    assert (gradient[-1] == 4.0 / 1024).all()
    assert (gradient[:-1] == 0).all()


def test_the_backend_is_offered_by_name():
    assert resolve_backend("triton", DEVICE) == "triton"
    assert resolve_backend("auto", DEVICE) == ("triton" if DEVICE.type == "cuda" else "torch")
