"""The Triton convolution against an fp64 reference; run by test_depthwise_convolution_kernel.py.

On the CPU it needs TRITON_INTERPRET=1 before triton is imported, hence a process of its own.
Tolerance: at most twice the error that plain PyTorch makes when it computes in the input's type.
"""

from __future__ import annotations

import os

import pytest
import torch
import torch.nn.functional as F
from magicbert_kernels.depthwise_convolution import (
    depthwise_convolution,
    depthwise_convolution_reference,
)
from magicbert_kernels.depthwise_convolution.launches import (
    BACKWARD,
    FORWARD,
    Sweeps,
    launch_backward,
    launch_forward,
    launch_reduction,
    partial_sums,
)
from magicbert_kernels.launch_table import trying

DEVICE = torch.device("cpu" if os.environ.get("TRITON_INTERPRET") == "1" else "cuda")
TYPES = [torch.float32, torch.bfloat16, torch.float16]
ON_GPU = pytest.mark.skipif(DEVICE.type != "cuda", reason="needs a CUDA device")
# Rounding of one fp32 result: the floor where the plain computation happens to be exact.
FLOOR = 4 * torch.finfo(torch.float32).eps
# Two documents and padding; padding first; ids that have no position, and padding inside.
PACKED = [[1, 1, 1, 2, 2, 2, 2, 0, 0], [0, 0, 3, 3, 5, 0, 5, 5, 5]]


def draw(*shape, dtype=torch.float32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator).to(DEVICE, dtype)


def draw_inputs(shape, kernel_size=5, dtype=torch.float32, weight_dtype=None):
    """Returns input, weight, bias and the output's gradient."""
    weight_dtype = weight_dtype or dtype
    return (
        draw(*shape, dtype=dtype),
        draw(kernel_size, shape[2], dtype=weight_dtype, seed=1),
        draw(shape[2], dtype=weight_dtype, seed=2),
        draw(*shape, dtype=dtype, seed=3),
    )


def packed(dtype=torch.int32):
    return torch.tensor(PACKED, dtype=dtype, device=DEVICE)


def naive(hidden, weight, bias, ids):
    """What one would write without thinking of precision."""
    middle, length = len(weight) // 2, hidden.shape[1]
    ids = torch.ones(hidden.shape[:2], device=DEVICE, dtype=torch.int32) if ids is None else ids
    padded = F.pad(hidden, (0, 0, middle, middle))
    far_ids = F.pad(ids, (middle, middle))
    output = bias.to(hidden.dtype).expand_as(hidden)
    for tap in range(len(weight)):
        is_linked = (far_ids[:, tap : tap + length] == ids) & (ids > 0)
        seen = torch.where(is_linked[..., None], padded[:, tap : tap + length], 0.0)
        output = output + seen * weight[tap].to(hidden.dtype)
    return output


def on_triton(hidden, weight, bias, ids):
    return depthwise_convolution(hidden, weight, bias, ids, backend="triton")


def with_gradients(function, inputs, ids):
    """Returns the output and the gradients of input, weight and bias."""
    *parameters, gradient = inputs
    leaves = [tensor.detach().clone().requires_grad_() for tensor in parameters]
    output = function(*leaves, ids)
    return (output.detach(), *torch.autograd.grad(output, leaves, gradient))


def assert_within_twice_naive(inputs, ids):
    exact = with_gradients(depthwise_convolution_reference, [i.double() for i in inputs], ids)
    ours = with_gradients(on_triton, inputs, ids)
    plain = with_gradients(naive, inputs, ids)
    types = (inputs[0].dtype, *(tensor.dtype for tensor in inputs[:3]))
    for ours_one, exact_one, plain_one, dtype in zip(ours, exact, plain, types, strict=True):
        assert (ours_one.dtype, ours_one.shape) == (dtype, exact_one.shape)
        scale = exact_one.abs().max().item()
        # The interpreter cuts bf16 off where hardware rounds: up to one unit in the last place.
        one_unit = max(torch.finfo(dtype).eps, FLOOR) * scale
        our_error = (ours_one.double() - exact_one).abs().max().item()
        plain_error = (plain_one.double() - exact_one).abs().max().item()
        assert our_error <= max(2 * plain_error, one_unit)


@pytest.mark.parametrize("dtype", TYPES, ids=str)
@pytest.mark.parametrize("kernel_size", [3, 5, 7])
def test_forward_and_gradients(kernel_size, dtype):
    assert_within_twice_naive(draw_inputs((2, 9, 24), kernel_size, dtype), packed())


@pytest.mark.parametrize("has_ids", [False, True])
@pytest.mark.parametrize("kernel_size", [3, 7])
@pytest.mark.parametrize("shape", [(3, 1, 1), (2, 2, 5), (1, 3, 96)])
def test_rows_shorter_than_the_filter(shape, kernel_size, has_ids):
    ids = torch.ones(shape[:2], dtype=torch.int32, device=DEVICE) if has_ids else None
    assert_within_twice_naive(draw_inputs(shape, kernel_size), ids)


@pytest.mark.parametrize("width", [64, 312, 1024])
def test_widths(width):
    assert_within_twice_naive(draw_inputs((1, 2, width), 3, torch.bfloat16), None)


def test_a_row_of_several_chunks():
    """The halo crosses from chunk to chunk, a document does too, the last chunk is not full."""
    ids = (torch.arange(37, device=DEVICE) // 14 + 1)[None]
    inputs = draw_inputs((1, 37, 8))
    assert Sweeps.of(BACKWARD, inputs[0], 5).num_chunks == 3
    assert_within_twice_naive(inputs, ids)
    assert_within_twice_naive(inputs, None)


def test_a_program_of_several_chunks_and_rows():
    settings = {"num_warps": 1, "step": 2, "step_of_most_taps": 1}
    settings |= {"max_chunk": 4, "min_chunk": 4, "programs": 2}
    inputs = draw_inputs((2, 9, 8))
    with trying(BACKWARD, settings), trying(FORWARD, settings):
        sweeps = Sweeps.of(BACKWARD, inputs[0], 5)
        assert (sweeps.num_chunks, sweeps.chunks_per_program, sweeps.num_programs) == (6, 3, 2)
        assert_within_twice_naive(inputs, packed())


def test_weights_in_fp32_beside_a_bf16_input():
    inputs = draw_inputs((2, 9, 16), dtype=torch.bfloat16, weight_dtype=torch.float32)
    assert_within_twice_naive(inputs, packed())


def test_tensors_that_are_not_contiguous():
    hidden, gradient = draw(9, 2, 16), draw(9, 2, 16, seed=3)
    strided = (
        hidden.transpose(0, 1), draw(16, 3).t(), draw(32)[::2], gradient.transpose(0, 1)
    )  # fmt: skip
    ids = packed().t().contiguous().t()
    assert not any(tensor.is_contiguous() for tensor in (*strided, ids))
    assert_within_twice_naive(strided, ids)
    # The gradient of a sum is one number, seen everywhere.
    assert_within_twice_naive((*strided[:3], torch.ones((), device=DEVICE).expand(2, 9, 16)), ids)


@pytest.mark.parametrize("shape", [(0, 4, 8), (2, 0, 8), (2, 4, 0)])
def test_nothing_to_do(shape):
    output, *gradients = with_gradients(on_triton, draw_inputs(shape), None)
    assert output.shape == shape
    assert [tuple(gradient.shape) for gradient in gradients] == [shape, (5, shape[2]), shape[2:]]
    assert all((gradient == 0).all() for gradient in gradients)


def test_padding_is_neither_seen_nor_sees():
    hidden, weight, bias, gradient = draw_inputs((2, 9, 16), dtype=torch.bfloat16)
    clean = with_gradients(on_triton, (hidden, weight, bias, gradient), packed())
    is_padding = packed() == 0
    assert (clean[0][is_padding] == bias).all()
    assert (clean[1][is_padding] == 0).all()
    hidden[is_padding] = float("nan")
    poisoned = with_gradients(on_triton, (hidden, weight, bias, gradient), packed())
    assert all(torch.equal(a, b) for a, b in zip(clean, poisoned, strict=True))


def test_a_change_in_one_segment_leaves_the_others_as_they_are():
    hidden, weight, bias, gradient = draw_inputs((2, 9, 16))
    before = with_gradients(on_triton, (hidden, weight, bias, gradient), packed())
    is_changed = packed() == 2
    hidden[is_changed], gradient[is_changed] = float("inf"), float("nan")
    after = with_gradients(on_triton, (hidden, weight, bias, gradient), packed())
    for index in (0, 1):
        assert torch.equal(before[index][~is_changed], after[index][~is_changed])
        assert not torch.isfinite(after[index][is_changed]).any()


def guarded(shape, dtype=torch.float32):
    """Returns a view of NaN, and the guard behind it."""
    size = torch.Size(shape).numel()
    buffer = torch.full((size + 64,), float("nan"), device=DEVICE, dtype=dtype)
    return buffer[:size].view(shape), buffer[size:]


@pytest.mark.parametrize("shape", [(2, 9, 24), (1, 11, 130)])
def test_every_element_of_the_outputs_is_written_and_no_other(shape):
    hidden, weight, bias, gradient = draw_inputs(shape, 3)
    (output, *guards), (grad_hidden, guard) = guarded(shape), guarded(shape)
    launch_forward(hidden, weight, bias, None, output)
    partial, partial_guard = guarded(partial_sums(hidden, 3).shape)
    launch_backward(gradient, hidden, weight, None, grad_hidden, partial)
    (grad_weight, weight_guard), (grad_bias, bias_guard) = (
        guarded((3, shape[2])),
        guarded(shape[2:]),
    )
    launch_reduction(partial, grad_weight, grad_bias)
    for tensor in (output, grad_hidden, partial, grad_weight, grad_bias):
        assert torch.isfinite(tensor).all()
    for tensor in (*guards, guard, partial_guard, weight_guard, bias_guard):
        assert torch.isnan(tensor).all()


def test_inputs_are_left_alone_and_the_bits_are_the_same_every_time():
    inputs = draw_inputs((2, 9, 16), dtype=torch.bfloat16)
    before = [tensor.clone() for tensor in inputs]
    torch.use_deterministic_algorithms(True)
    try:
        first, second = (with_gradients(on_triton, inputs, packed()) for _ in range(2))
    finally:
        torch.use_deterministic_algorithms(False)
    assert all(torch.equal(a, b) for a, b in zip(inputs, before, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_ids_of_any_integer_type():
    hidden, weight, bias, _ = draw_inputs((2, 9, 8), 3)
    outputs = [on_triton(hidden, weight, bias, packed(t)) for t in (torch.int32, torch.int64)]
    assert torch.equal(*outputs)


def test_compiled_code_gives_the_same_bits():
    inputs = draw_inputs((2, 9, 8), 3)
    compiled = torch.compile(on_triton, backend="aot_eager", fullgraph=True)
    given = with_gradients(compiled, inputs, packed())
    wanted = with_gradients(on_triton, inputs, packed())
    assert all(torch.equal(a, b) for a, b in zip(given, wanted, strict=True))


def test_autocast_changes_nothing():
    inputs = draw_inputs((2, 9, 8), 3)
    wanted = with_gradients(on_triton, inputs, packed())
    with torch.autocast(DEVICE.type, torch.bfloat16):
        given = with_gradients(on_triton, inputs, packed())
    assert all(torch.equal(a, b) for a, b in zip(given, wanted, strict=True))


@ON_GPU
def test_a_cuda_graph_replays_it_on_new_inputs():
    hidden, weight, bias, _ = draw_inputs((2, 9, 768))
    ids = packed()
    on_triton(hidden, weight, bias, ids)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        output = on_triton(hidden, weight, bias, ids)
    hidden.copy_(draw(2, 9, 768, seed=5))
    ids.copy_(ids.flip(1))
    graph.replay()
    assert torch.equal(output, on_triton(hidden, weight, bias, ids))


@ON_GPU
def test_more_elements_than_32_bits_count():
    shape = (2**31 // (512 * 768) + 2, 512, 768)
    hidden = torch.zeros(shape, dtype=torch.bfloat16, device=DEVICE)
    hidden[-1] = draw(512, 768, dtype=torch.bfloat16)
    weight, bias = draw(5, 768, seed=1), draw(768, seed=2)
    last = on_triton(hidden[-1:].clone(), weight, bias, None)
    assert torch.equal(on_triton(hidden, weight, bias, None)[-1:], last)
