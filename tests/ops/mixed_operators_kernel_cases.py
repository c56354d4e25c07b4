"""The mixed operators' kernels against fp64 references; run by test_mixed_operators_kernel.py.

On the CPU they need TRITON_INTERPRET=1 before triton is imported, hence a process of its own.
Tolerance: at most twice the error that plain PyTorch makes when it computes in the input's type.
"""

from __future__ import annotations

import os

import pytest
import torch
from magicbert_kernels.depthwise_convolution import depthwise_convolution
from magicbert_kernels.mixed_operators import (
    OperatorRows,
    mixed_bias_gelu,
    mixed_bias_gelu_reference,
    mixed_depthwise_convolution,
    mixed_depthwise_convolution_reference,
    mixed_gelu_norm,
    mixed_gelu_norm_reference,
)
from magicbert_kernels.mixed_operators.depthwise_kernel import launch_depthwise
from magicbert_kernels.mixed_operators.kernel import (
    chunk_width,
    launch_bias_gelu,
    launch_gelu_norm,
)

DEVICE = torch.device("cpu" if os.environ.get("TRITON_INTERPRET") == "1" else "cuda")
ON_GPU = DEVICE.type == "cuda"
TYPES = [torch.float32, torch.bfloat16, torch.float16]
WIDTHS = (3, 7, 5)
EPSILON = 1e-5
# Rounding of one fp32 result: the floor where the plain computation happens to be exact.
FLOOR = 4 * torch.finfo(torch.float32).eps


def noise(*shape, dtype=torch.float32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator).to(DEVICE, dtype)


def operator_rows(*sizes):
    return OperatorRows.of_sizes(sizes, DEVICE)


def filters(num_channels, dtype=torch.float32, widths=WIDTHS):
    weights = [noise(width, num_channels, dtype=dtype, seed=width) for width in widths]
    return weights, vectors(num_channels, len(widths), dtype, seed=20)


def vectors(width, count=3, dtype=torch.float32, seed=30):
    return [noise(width, dtype=dtype, seed=seed + index) for index in range(count)]


def packed_ids(num_rows, length):
    """Segments of random lengths, 1 and 2 among them, some of length zero; padding at the end."""
    generator = torch.Generator().manual_seed(num_rows * 100 + length)
    steps = (torch.rand(num_rows, length, generator=generator) < 0.4).long()
    ids = 1 + steps.cumsum(1) * 2
    padding = torch.randint(0, max(length // 2, 1), (num_rows, 1), generator=generator)
    return torch.where(torch.arange(length) >= length - padding, 0, ids).to(DEVICE)


def wide(values):
    return [wide(value) for value in values] if isinstance(values, list) else values.double()


def largest(values):
    return values.double().abs().max().item() if values.numel() else 0.0


def assert_within_twice_plain(ours, plain, exact):
    """The interpreter cuts bf16 off where hardware rounds: one unit in the last place more."""
    assert ours.shape == exact.shape
    one_unit = torch.finfo(ours.dtype).eps * largest(exact)
    ours_error, plain_error = largest(ours - exact), largest(plain - exact)
    assert ours_error <= max(2 * plain_error, one_unit, FLOOR * largest(exact))


def convolve(hidden, weights, biases, operators, ids):
    return mixed_depthwise_convolution(hidden, weights, biases, operators, ids, backend="triton")


def assert_convolution(hidden, weights, biases, operators, ids):
    ours = convolve(hidden, weights, biases, operators, ids)
    reference = mixed_depthwise_convolution_reference
    plain = reference(hidden, weights, biases, operators, ids)
    exact = reference(hidden.double(), wide(weights), wide(biases), operators, ids)
    assert ours.dtype == hidden.dtype
    assert_within_twice_plain(ours, plain, exact)


def norm_inputs(num_rows, length, width, dtype=torch.float32, count=3):
    return (
        noise(num_rows, length, width, dtype=dtype, seed=1),
        noise(num_rows, length, width, dtype=dtype, seed=2),
        vectors(width, count, dtype, seed=40),
        vectors(width, count, dtype, seed=50),
        vectors(width, count, dtype, seed=60),
    )


def gelu_norm(*inputs):
    return mixed_gelu_norm(*inputs, epsilon=EPSILON, backend="triton")


def assert_gelu_norm(inputs, operators):
    ours = gelu_norm(*inputs, operators)
    plain = mixed_gelu_norm_reference(*inputs, operators, EPSILON)
    exact = mixed_gelu_norm_reference(*map(wide, inputs), operators, EPSILON)
    assert ours.dtype == inputs[1].dtype
    assert_within_twice_plain(ours, plain, exact)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize(
    ("shape", "is_packed"),
    [((4, 1, 1), False), ((4, 2, 5), True), ((4, 7, 40), False), ((4, 9, 24), True)],
)
def test_convolution(shape, dtype, is_packed):
    ids = packed_ids(*shape[:2]) if is_packed else None
    hidden = noise(*shape, dtype=dtype)
    assert_convolution(hidden, *filters(shape[2], dtype), operator_rows(1, 2, 1), ids)


@pytest.mark.parametrize("sizes", [(3, 0, 0), (0, 0, 2), (1, 0, 2), (1, 1, 1)])
def test_convolution_where_an_operator_has_all_rows_or_none(sizes):
    hidden = noise(sum(sizes), 6, 24)
    assert_convolution(hidden, *filters(24), operator_rows(*sizes), packed_ids(sum(sizes), 6))


@pytest.mark.parametrize("widths", [(3,), (7, 7), (1, 9, 3, 5)])
def test_convolution_of_any_odd_widths(widths):
    sizes = (1,) * len(widths)
    weights, biases = filters(8, widths=widths)
    assert_convolution(noise(len(widths), 5, 8), weights, biases, operator_rows(*sizes), None)


def test_convolution_of_rows_that_are_longer_than_a_program():
    """More positions than a chunk has, and more channels than a tile."""
    hidden = noise(1, 20, 40)
    assert_convolution(hidden, *filters(40), operator_rows(0, 1, 0), packed_ids(1, 20))


def test_each_operator_gets_the_bits_of_its_own_launch():
    hidden, ids, operators = noise(4, 9, 24), packed_ids(4, 9), operator_rows(1, 2, 1)
    weights, biases = filters(24)
    together = operators.split(convolve(hidden, weights, biases, operators, ids))
    rows = zip(operators.split(hidden), weights, biases, operators.split(ids), strict=True)
    for ours, given in zip(together, rows, strict=True):
        assert torch.equal(ours, depthwise_convolution(*given, backend="triton"))


@pytest.mark.parametrize("shape", [(0, 4, 8), (3, 0, 8)])
def test_nothing_to_do_launches_nothing(shape):
    operators = operator_rows(*([1] * 3 if shape[0] else [0] * 3))
    assert convolve(noise(*shape), *filters(8), operators, None).shape == shape
    inputs = norm_inputs(*shape)
    assert gelu_norm(*inputs, operators).shape == shape
    assert mixed_bias_gelu(inputs[0], inputs[2], operators, backend="triton").shape == shape


def test_another_segment_and_another_row_change_no_bit():
    hidden, ids, operators = noise(3, 9, 16), packed_ids(3, 9), operator_rows(1, 1, 1)
    before = convolve(hidden, *filters(16), operators, ids)
    chosen = ids == ids[1, 4]
    chosen[[0, 2]] = False
    changed = torch.where(chosen[..., None], float("inf"), hidden)
    after = convolve(changed, *filters(16), operators, ids)
    assert torch.equal(before[~chosen], after[~chosen])
    assert not torch.isfinite(after[chosen]).all()


def test_padding_is_never_seen_and_gets_the_bias():
    hidden, operators = noise(3, 8, 16), operator_rows(1, 1, 1)
    ids = torch.ones(3, 8, dtype=torch.long, device=DEVICE)
    ids[0, 3:] = ids[1, 5] = ids[2] = 0
    weights, biases = filters(16)
    clean = convolve(hidden, weights, biases, operators, ids)
    hidden[ids == 0] = float("nan")
    assert torch.equal(convolve(hidden, weights, biases, operators, ids), clean)
    for row in range(3):
        assert (clean[row][ids[row] == 0] == biases[row]).all()


def test_convolution_writes_every_element_and_no_other():
    hidden, operators = noise(3, 7, 20), operator_rows(1, 0, 2)
    buffer = torch.full((hidden.numel() + 64,), float("nan"), device=DEVICE)
    output = buffer[: hidden.numel()].view(hidden.shape)
    launch_depthwise(hidden, *filters(20), operators.ids, packed_ids(3, 7), output)
    assert torch.isfinite(output).all()
    assert torch.isnan(buffer[hidden.numel() :]).all()


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("shape", [(4, 1, 1), (4, 9, 40), (4, 2, 192)])
def test_gelu_norm(shape, dtype):
    assert_gelu_norm(norm_inputs(*shape, dtype=dtype), operator_rows(1, 2, 1))


@pytest.mark.parametrize("sizes", [(3, 0, 0), (0, 1, 2)])
def test_gelu_norm_where_an_operator_has_no_rows(sizes):
    assert_gelu_norm(norm_inputs(3, 5, 24), operator_rows(*sizes))


def test_gelu_norm_of_two_types_has_the_residuals():
    """As under autocast: products in bf16, hidden states and norms in fp32."""
    branch, *others = norm_inputs(3, 5, 24)
    ours = gelu_norm(branch.bfloat16(), *others, operator_rows(1, 1, 1))
    exact = mixed_gelu_norm_reference(
        branch.bfloat16().double(), *map(wide, others), operator_rows(1, 1, 1), EPSILON
    )
    assert ours.dtype == torch.float32
    assert largest(ours - exact) <= 8 * FLOOR * largest(exact)


def test_gelu_norm_keeps_small_differences_beside_a_large_mean():
    branch, residual, *others = norm_inputs(3, 2, 96)
    assert_gelu_norm((branch, residual + 1000.0, *others), operator_rows(1, 1, 1))


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("shape", [(4, 2, 5), (4, 9, 40), (4, 3, 1100)])
def test_bias_gelu(shape, dtype):
    inner, biases = noise(*shape, dtype=dtype), vectors(shape[2], dtype=dtype)
    operators = operator_rows(2, 0, 2)
    ours = mixed_bias_gelu(inner, biases, operators, backend="triton")
    plain = mixed_bias_gelu_reference(inner, biases, operators)
    exact = mixed_bias_gelu_reference(inner.double(), wide(biases), operators)
    assert_within_twice_plain(ours, plain, exact)


@pytest.mark.parametrize("width", [20, 70])
def test_the_elementwise_kernels_write_every_element_and_no_other(width):
    inputs, operators = norm_inputs(3, 5, width), operator_rows(1, 0, 2)
    for launch in (
        lambda output: launch_bias_gelu(inputs[0], inputs[2], operators.ids, output),
        lambda output: launch_gelu_norm(
            inputs[0], inputs[1], inputs[2:], operators.ids, EPSILON, output
        ),
    ):
        size = inputs[0].numel()
        buffer = torch.full((size + 64,), float("nan"), device=DEVICE)
        launch(buffer[:size].view(inputs[0].shape))
        assert torch.isfinite(buffer[:size]).all()
        assert torch.isnan(buffer[size:]).all()


def test_rows_at_other_places_get_the_same_bits():
    """Rows of one operator change places; ids come as a slice that starts anywhere."""
    hidden, ids = noise(4, 6, 24), packed_ids(4, 6)
    places = torch.tensor([1, 0, 3, 2], device=DEVICE)
    numbers = torch.tensor([9, 0, 0, 2, 2], device=DEVICE)
    operators = OperatorRows((2, 0, 2), numbers[1:], torch.tensor([2, 2, 4], device=DEVICE))
    first = convolve(hidden, *filters(24), operators, ids)
    second = convolve(hidden[places], *filters(24), operators, ids[places])
    assert torch.equal(first[places], second)
    branch, residual, *others = norm_inputs(4, 6, 24)
    first = gelu_norm(branch, residual, *others, operators)
    assert torch.equal(
        first[places], gelu_norm(branch[places], residual[places], *others, operators)
    )


def test_non_contiguous_inputs():
    hidden = noise(6, 3, 24).transpose(0, 1)
    weights = [noise(24, width, seed=width).t() for width in WIDTHS]
    biases = [noise(48, seed=index)[::2] for index in range(3)]
    ids = packed_ids(6, 3).t()
    assert not hidden.is_contiguous()
    assert_convolution(hidden, weights, biases, operator_rows(1, 1, 1), ids)
    assert_gelu_norm((hidden, hidden * 2, biases, biases, biases), operator_rows(1, 1, 1))


def test_inputs_are_left_alone():
    hidden, ids, operators = noise(3, 5, 8), packed_ids(3, 5), operator_rows(1, 1, 1)
    weights, biases = filters(8)
    given = (hidden, *weights, *biases, ids)
    before = [tensor.clone() for tensor in given]
    convolve(hidden, weights, biases, operators, ids)
    gelu_norm(hidden, hidden, biases, biases, biases, operators)
    assert all(torch.equal(a, b) for a, b in zip(before, given, strict=True))


def test_a_gradient_is_refused():
    hidden, operators = noise(3, 5, 8).requires_grad_(), operator_rows(1, 1, 1)
    with pytest.raises(ValueError, match="no gradient"):
        convolve(hidden, *filters(8), operators, None)
    with torch.no_grad():
        assert convolve(hidden, *filters(8), operators, None).shape == hidden.shape


def layer(hidden, weights, biases, ids, operators):
    mixed = convolve(hidden, weights, biases, operators, ids)
    activated = mixed_bias_gelu(mixed, biases, operators, backend="triton")
    return gelu_norm(activated, hidden, biases, biases, biases, operators)


def test_compiled_and_under_autocast_and_deterministic():
    given = (noise(3, 5, 8), *filters(8), packed_ids(3, 5), operator_rows(1, 1, 1))
    expected = layer(*given)
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    assert torch.equal(compiled(*given), expected)
    with torch.autocast(DEVICE.type, torch.bfloat16):
        assert torch.equal(layer(*given), expected)
    torch.use_deterministic_algorithms(True)
    try:
        assert torch.equal(layer(*given), expected)
    finally:
        torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize(
    ("width", "chunk"), [(64, 64), (100, 128), (192, 64), (640, 128), (768, 256), (1024, 1024)]
)
def test_chunks_leave_few_lanes_idle(width, chunk):
    assert chunk_width(width) == chunk


@pytest.mark.skipif(not ON_GPU, reason="no CUDA device")
def test_a_graph_replays_on_new_inputs():
    given = (noise(3, 64, 8), *filters(8), packed_ids(3, 64), operator_rows(1, 1, 1))
    layer(*given)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        output = layer(*given)
    given[0].copy_(noise(3, 64, 8, seed=5))
    graph.replay()
    assert torch.equal(output, layer(*given))


@pytest.mark.skipif(not ON_GPU, reason="no CUDA device")
def test_more_elements_than_int32_counts():
    length, width = 2**16, 1024
    hidden = torch.ones(33, length, width, dtype=torch.bfloat16, device=DEVICE)
    weights, biases = filters(width, torch.bfloat16)
    operators = operator_rows(16, 0, 17)
    output = convolve(hidden, weights, biases, operators, None)
    assert torch.equal(
        output[-1], convolve(hidden[-1:], weights, biases, operator_rows(0, 0, 1), None)[0]
    )
    normed = gelu_norm(output, hidden, biases, biases, biases, operators)
    last = gelu_norm(output[-1:], hidden[-1:], biases, biases, biases, operator_rows(0, 0, 1))
    assert torch.equal(normed[-1], last[0])
