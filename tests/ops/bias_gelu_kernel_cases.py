"""The Triton kernel against an fp64 reference; run by test_bias_gelu_kernel.py.

On the CPU it needs TRITON_INTERPRET=1 before triton is imported, hence a process of its own.
Tolerance: at most twice the error that plain PyTorch makes when it computes in the input's type.
"""

from __future__ import annotations

import os

import pytest
import torch
from magicbert_kernels.bias_gelu import bias_gelu, bias_gelu_reference
from magicbert_kernels.bias_gelu.kernel import (
    launch_backward,
    launch_forward,
    new_partial_sums,
    tile_sizes,
)
from magicbert_kernels.philox import draw_seed, keep_mask_reference

DEVICE = torch.device("cpu" if os.environ.get("TRITON_INTERPRET") == "1" else "cuda")
TYPES = [torch.float32, torch.bfloat16, torch.float16]
SHAPES = [(1, 1), (3, 7, 5), (2, 33, 96), (5, 1, 130), (0, 8), (2, 3, 576)]
SEED = torch.tensor(-(2**60) + 12345, device=DEVICE)


def draw(shape, dtype, seed=0, spread=2.0):
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(shape, generator=generator) * spread).to(DEVICE, dtype)


def triton_form(inner, bias, **options):
    return bias_gelu(inner, bias, backend="triton", **options)


def with_gradients(function, inner, bias, upstream, **options):
    leaves = [inner.detach().clone().requires_grad_(), bias.detach().clone().requires_grad_()]
    output = function(*leaves, **options)
    return [output.detach(), *torch.autograd.grad(output, leaves, upstream.to(output.dtype))]


def largest(value):
    return value.double().abs().max().item() if value.numel() else 0.0


def assert_within_twice_plain(inner, bias, upstream, **options):
    exact = with_gradients(
        bias_gelu_reference, inner.double(), bias.double(), upstream.double(), **options
    )
    ours = with_gradients(triton_form, inner, bias, upstream, **options)
    plain = with_gradients(bias_gelu_reference, inner, bias, upstream, **options)
    for name, right, own, other in zip(
        ("output", "inner", "bias"), exact, ours, plain, strict=True
    ):
        assert own.dtype == (bias if name == "bias" else inner).dtype
        # The interpreter cuts bf16 off where hardware rounds: up to one unit in the last place.
        one_unit = 2 * torch.finfo(own.dtype).eps * largest(right)
        assert largest(own - right) <= max(2 * largest(other - right), one_unit), name


@pytest.mark.parametrize("dropout", [0.0, 0.1])
@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_output_and_gradients(shape, dtype, dropout):
    inner, upstream = draw(shape, dtype), draw(shape, dtype, seed=1)
    bias = draw(shape[-1:], dtype, seed=2)
    assert_within_twice_plain(inner, bias, upstream, dropout=dropout, seed=SEED, stream=3)


@pytest.mark.parametrize("width", [64, 256, 768, 1000, 1024])
def test_widths_of_models(width):
    inner, upstream = draw((5, width), torch.bfloat16), draw((5, width), torch.bfloat16, seed=1)
    assert_within_twice_plain(inner, draw((width,), torch.bfloat16, seed=2), upstream)


@pytest.mark.parametrize("num_rows", [1, 2, 64, 300])
def test_the_gradient_of_the_bias_sums_over_every_row(num_rows):
    inner, upstream = draw((num_rows, 20), torch.float32), torch.ones(num_rows, 20, device=DEVICE)
    assert_within_twice_plain(inner, draw((20,), torch.float32, seed=2), upstream)


def test_a_program_takes_more_than_one_tile_of_rows(monkeypatch):
    monkeypatch.setattr("magicbert_kernels.bias_gelu.kernel.MAX_ROW_PROGRAMS", 3)
    inner, upstream = draw((900, 24), torch.float32), draw((900, 24), torch.float32, seed=1)
    bias = draw((24,), torch.float32, seed=2)
    assert new_partial_sums(inner).shape == (3, 24)
    assert_within_twice_plain(inner, bias, upstream, dropout=0.1, seed=SEED)


def test_far_from_zero_it_is_the_identity_or_zero():
    values = torch.tensor([[-300.0, -40.0, -9.0, 0.0, 9.0, 40.0, 300.0]], device=DEVICE)
    bias = torch.zeros(7, device=DEVICE)
    output, gradient, _ = with_gradients(triton_form, values, bias, torch.ones_like(values))
    assert torch.equal(output, values.clamp(min=0.0))
    expected = (values > 0).float() + 0.5 * (values == 0).float()
    torch.testing.assert_close(gradient, expected, rtol=0, atol=1e-16)


@pytest.mark.parametrize("shape", [(6, 64), (7, 33)])
def test_the_mask_is_the_one_of_the_seed(shape):
    """Large values pass GELU unchanged, so the output shows the mask; so does the gradient."""
    inner = torch.full(shape, 50.0, device=DEVICE)
    bias = torch.zeros(shape[-1], device=DEVICE)
    kept = keep_mask_reference(SEED, 5, shape, 0.3)
    output, gradient, _ = with_gradients(
        triton_form, inner, bias, torch.ones_like(inner), dropout=0.3, seed=SEED, stream=5
    )
    assert torch.equal(output != 0, kept)
    assert torch.equal(gradient != 0, kept)
    torch.testing.assert_close(output[kept], torch.full_like(output[kept], 50 / 0.7))


def test_non_contiguous_inputs():
    inner, upstream = (
        draw((9, 4, 20), torch.float32).transpose(0, 1),
        draw((4, 9, 20), torch.float32),
    )
    bias = draw((40,), torch.float32, seed=2)[::2]
    assert not inner.is_contiguous()
    assert_within_twice_plain(inner, bias, upstream, dropout=0.1, seed=SEED)
    assert_within_twice_plain(inner, bias, torch.ones(1, 1, 1, device=DEVICE).expand(4, 9, 20))


def test_a_bias_of_another_type():
    """Under autocast the product is bf16 while the parameter stays fp32."""
    inner, upstream = draw((6, 40), torch.bfloat16), draw((6, 40), torch.bfloat16, seed=1)
    bias = draw((40,), torch.float32, seed=2)
    _, inner_gradient, bias_gradient = with_gradients(triton_form, inner, bias, upstream)
    assert (inner_gradient.dtype, bias_gradient.dtype) == (torch.bfloat16, torch.float32)
    exact = with_gradients(bias_gelu_reference, inner.double(), bias.double(), upstream.double())
    torch.testing.assert_close(bias_gradient, exact[2].float(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("shape", [(13, 5), (70, 130), (3, 1100)])
def test_every_element_of_the_outputs_is_written_and_no_other(shape):
    """Buffers full of NaN, with a guard behind them."""
    inner, upstream = draw(shape, torch.float32), draw(shape, torch.float32, seed=1)
    bias = draw(shape[1:], torch.float32, seed=2)
    size = inner.numel()
    buffers = [torch.full((size + 64,), float("nan"), device=DEVICE) for _ in range(2)]
    output, gradient = (buffer[:size].view(shape) for buffer in buffers)
    num_partial = new_partial_sums(inner).numel()
    sums = torch.full((num_partial + 64,), float("nan"), device=DEVICE)
    partial_sums = sums[:num_partial].view(-1, shape[1])
    launch_forward(inner, bias, output, SEED, 0, 0.1)
    launch_backward(upstream, inner, bias, gradient, partial_sums, SEED, 0, 0.1)
    for written, buffer in ((output, buffers[0]), (gradient, buffers[1]), (partial_sums, sums)):
        assert torch.isfinite(written).all()
        assert torch.isnan(buffer[written.numel() :]).all()


def test_inputs_are_left_alone_and_nothing_but_they_is_kept():
    inner = draw((4, 6, 40), torch.bfloat16).requires_grad_()
    bias = draw((40,), torch.bfloat16, seed=2).requires_grad_()
    before = [inner.detach().clone(), bias.detach().clone()]
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        output = triton_form(inner, bias, dropout=0.1, seed=SEED)
    addresses = {tensor.data_ptr() for tensor in saved}
    assert addresses == {inner.data_ptr(), bias.data_ptr(), SEED.data_ptr()}
    output.sum().backward()
    assert torch.equal(inner, before[0])
    assert torch.equal(bias, before[1])


def test_one_row_changes_its_own_outputs_alone():
    inner, bias = draw((9, 40), torch.bfloat16), draw((40,), torch.bfloat16, seed=2)
    upstream = torch.ones_like(inner)
    before = with_gradients(triton_form, inner, bias, upstream, dropout=0.1, seed=SEED)
    inner[4] = float("nan")
    after = with_gradients(triton_form, inner, bias, upstream, dropout=0.1, seed=SEED)
    others = torch.arange(9, device=DEVICE) != 4
    assert torch.equal(before[0][others], after[0][others])
    assert torch.equal(before[1][others], after[1][others])


def test_the_same_bits_every_time():
    inner, upstream = draw((70, 96), torch.float32), draw((70, 96), torch.float32, seed=1)
    bias = draw((96,), torch.float32, seed=2)
    one, two = (with_gradients(triton_form, inner, bias, upstream) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_compiled_code_gives_the_same(dtype):
    inner, upstream = draw((4, 6, 40), dtype), draw((4, 6, 40), dtype, seed=1)
    bias = draw((40,), dtype, seed=2)

    def twice(inner, bias):
        return triton_form(inner, bias, dropout=0.1, seed=SEED) * 2

    plain = with_gradients(twice, inner, bias, upstream)
    compiled = torch.compile(twice, fullgraph=True, backend="aot_eager")
    inside = with_gradients(compiled, inner, bias, upstream)
    assert all(torch.equal(a, b) for a, b in zip(plain, inside, strict=True))


def test_autocast_and_deterministic_mode_change_nothing():
    inner, upstream = draw((4, 6, 40), torch.float32), draw((4, 6, 40), torch.float32, seed=1)
    bias = draw((40,), torch.float32, seed=2)
    plain = with_gradients(triton_form, inner, bias, upstream)
    torch.use_deterministic_algorithms(True)
    try:
        with torch.autocast(DEVICE.type, torch.bfloat16):
            inside = with_gradients(triton_form, inner, bias, upstream)
    finally:
        torch.use_deterministic_algorithms(False)
    assert all(torch.equal(a, b) for a, b in zip(plain, inside, strict=True))


@pytest.mark.parametrize("dropout", [0.0, 0.2])
def test_the_references_gradient_is_its_derivative(dropout):
    inner = draw((3, 5), torch.float64).requires_grad_()
    bias = draw((5,), torch.float64, seed=2).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda *leaves: bias_gelu_reference(*leaves, dropout=dropout, seed=SEED), (inner, bias)
    )


def test_double_precision_is_refused():
    with pytest.raises(ValueError, match="use torch for fp64"):
        triton_form(draw((3, 8), torch.float64), draw((8,), torch.float64))


def test_the_operator_is_registered_as_pytorch_wants_it():
    inner = draw((3, 8), torch.float32).requires_grad_()
    bias = draw((8,), torch.float32, seed=2).requires_grad_()
    arguments = (inner, bias, draw_seed(DEVICE), 1, 0.1)
    torch.library.opcheck(torch.ops.magicbert.bias_gelu_forward, arguments)


@pytest.mark.parametrize(("width", "tile"), [(3072, 512), (768, 256), (96, 32), (4096, 512)])
def test_widths_that_are_no_power_of_two_waste_no_lanes(width, tile):
    assert tile_sizes(width)[1] == tile


@pytest.mark.skipif(DEVICE.type != "cuda", reason="no CUDA device")
def test_a_replayed_graph_draws_a_new_mask():
    inner = torch.full((64, 512), 50.0, device=DEVICE)
    bias = torch.zeros(512, device=DEVICE)
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        triton_form(inner, bias, dropout=0.5, seed=draw_seed(DEVICE))
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        output = triton_form(inner, bias, dropout=0.5, seed=draw_seed(DEVICE))
    masks = []
    for _ in range(2):
        graph.replay()
        masks.append((output != 0).clone())
    assert not torch.equal(*masks)


@pytest.mark.skipif(DEVICE.type != "cuda", reason="no CUDA device")
def test_more_than_two_to_the_31_elements():
    inner = torch.zeros(((1 << 21) + 5, 1024), dtype=torch.bfloat16, device=DEVICE)
    inner[-1] = 8.0
    bias = torch.zeros(1024, dtype=torch.bfloat16, device=DEVICE, requires_grad=True)
    inner.requires_grad_()
    output = triton_form(inner, bias)
    assert (output[-1] == 8.0).all()
    gradient, _ = torch.autograd.grad(output, [inner, bias], torch.ones_like(output))
    assert (gradient[-1] == 1.0).all()
    assert (gradient[:-1] == 0.5).all()
