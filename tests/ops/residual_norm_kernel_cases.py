"""The Triton kernels against an fp64 reference; run by test_residual_norm_kernel.py.

On the CPU it needs TRITON_INTERPRET=1 before triton is imported, hence a process of its own.
Tolerance: at most twice the error that plain PyTorch makes when it computes in the input's type.
"""

from __future__ import annotations

import os
from itertools import product

import pytest
import torch
import torch.nn.functional as F
import triton.language as tl
from magicbert_kernels.launch_table import trying
from magicbert_kernels.philox import draw_seed, dropout_reference, keep_mask_reference
from magicbert_kernels.residual_norm import residual_norm
from magicbert_kernels.residual_norm.autograd import forward_operator
from magicbert_kernels.residual_norm.launches import (
    Dropout,
    launch_backward,
    launch_forward,
    launch_reduction,
    num_partials,
)
from triton.runtime import interpreter

DEVICE = torch.device("cpu" if os.environ.get("TRITON_INTERPRET") == "1" else "cuda")
TYPES = [torch.float32, torch.bfloat16, torch.float16]
EPSILON = 1e-5
# Rounding of one fp32 result: the floor where the plain computation happens to be exact.
FLOOR = 4 * torch.finfo(torch.float32).eps
ODD_SHAPES = [
    ((1, 1), torch.float32),
    ((2,), torch.bfloat16),
    ((1, 2, 33), torch.float32),
    ((1, 2, 33), torch.bfloat16),
    ((37, 5), torch.float16),
    ((3, 96), torch.bfloat16),
    ((5, 130), torch.float32),
    ((2, 257), torch.float16),
    ((34, 64), torch.bfloat16),
    ((1, 1100), torch.bfloat16),
]
ON_GPU = pytest.mark.skipif(DEVICE.type != "cuda", reason="no CUDA device")


def nearest_bfloat16(values):
    """Returns fp32 numbers rounded to the bits of bf16 as hardware does, ties to even."""
    return torch.from_numpy(values).bfloat16().view(torch.int16).numpy().view("uint16")


@pytest.fixture(autouse=True)
def round_as_hardware_does(monkeypatch):
    """The interpreter cuts bf16 off: errors twice as large, and all of one sign."""
    if DEVICE.type == "cuda":
        return
    truncate = interpreter._convert_float

    def convert(values, source, target, mode):
        if (source, target) == (tl.float32, tl.bfloat16):
            return nearest_bfloat16(values)
        return truncate(values, source, target, mode)

    monkeypatch.setattr(interpreter, "_convert_float", convert)


def random(*shape, seed=0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator).to(DEVICE, dtype)


def inputs(shape, dtype, has_branch_bias=False, parameter_dtype=None):
    """Returns branch, residual, weight, bias and, if wanted, the branch's bias."""
    width, kind = shape[-1], parameter_dtype or dtype
    weight = (random(width, seed=3).abs() + 0.2).to(kind)
    tensors = [
        random(*shape, seed=1, dtype=dtype),
        random(*shape, seed=2, dtype=dtype),
        weight,
        (0.4 * random(width, seed=4)).to(kind),
    ]
    return [*tensors, random(width, seed=5, dtype=kind)] if has_branch_bias else tensors


def seed_of(number=7):
    return torch.tensor(number, dtype=torch.int64, device=DEVICE)


def call(tensors, backend="triton", **options):
    branch_bias = tensors[4] if len(tensors) == 5 else None
    outputs = residual_norm(
        *tensors[:4], epsilon=EPSILON, branch_bias=branch_bias, seed=seed_of(), backend=backend,
        **options,
    )  # fmt: skip
    return outputs if isinstance(outputs, tuple) else (outputs,)


def naive(tensors, activation="none", dropout=0.0, stream=0, is_prenorm=False):
    """What one would write without thinking of precision."""
    value = tensors[0] + tensors[4] if len(tensors) == 5 else tensors[0]
    value = F.gelu(value) if activation == "gelu" else value
    value = dropout_reference(value, seed_of(), stream, dropout) if dropout else value
    summed = tensors[1] + value
    normed = F.layer_norm(summed, summed.shape[-1:], tensors[2], tensors[3], EPSILON)
    return (normed, summed) if is_prenorm else (normed,)


def with_gradients(function, tensors, **options):
    leaves = [tensor.detach().clone().requires_grad_() for tensor in tensors]
    outputs = function(leaves, **options)
    total = sum(
        (output * random(*output.shape, seed=20 + index, dtype=output.dtype)).sum()
        for index, output in enumerate(outputs)
    )
    return [output.detach() for output in outputs], torch.autograd.grad(total, leaves)


def largest(tensor):
    return tensor.double().abs().max().item() if tensor.numel() else 0.0


def assert_within_twice_naive(tensors, **options):
    exact = with_gradients(
        lambda leaves, **given: call(leaves, "torch", **given),
        [tensor.double() for tensor in tensors], **options,
    )  # fmt: skip
    ours = with_gradients(call, tensors, **options)
    plain = with_gradients(naive, tensors, **options)
    kinds = ["normed", "summed"][: len(ours[0])]
    kinds += ["branch", "residual", "weight", "bias", "branch_bias"][: len(tensors)]
    for kind, our, low, true in zip(
        kinds, [*ours[0], *ours[1]], [*plain[0], *plain[1]], [*exact[0], *exact[1]], strict=True
    ):
        unit = torch.finfo(our.dtype).eps if our.dtype != torch.float32 else FLOOR
        allowed = max(2 * largest(low - true), unit * largest(true))
        assert largest(our - true) <= allowed, kind
    assert all(g.dtype == t.dtype for g, t in zip(ours[1], tensors, strict=True))
    assert all(output.dtype == tensors[1].dtype for output in ours[0])


@pytest.mark.parametrize(
    ("dtype", "dropout", "is_prenorm"),
    [
        *product([torch.float32], [0.0, 0.3], [False, True]),
        *product([torch.bfloat16], [0.3], [False, True]),
        (torch.float16, 0.3, False),
    ],
)
@pytest.mark.parametrize(
    ("activation", "has_branch_bias"), [("none", False), ("none", True), ("gelu", True)]
)
def test_every_variant(activation, has_branch_bias, dropout, is_prenorm, dtype):
    assert_within_twice_naive(
        inputs((3, 5, 40), dtype, has_branch_bias),
        activation=activation, dropout=dropout, stream=2, is_prenorm=is_prenorm,
    )  # fmt: skip


@pytest.mark.parametrize(("shape", "dtype"), ODD_SHAPES)
def test_odd_shapes(shape, dtype):
    assert_within_twice_naive(inputs(shape, dtype, True), activation="gelu", dropout=0.1)
    assert_within_twice_naive(inputs(shape, dtype), dropout=0.1)


@pytest.mark.parametrize("width", [320, 768, 1024])
def test_widths_of_models(width):
    assert_within_twice_naive(inputs((2, width), torch.bfloat16), dropout=0.1)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("dropout", [0.0, 0.2])
def test_weights_from_which_the_output_gives_nothing_back(dtype, dropout):
    """Weights of zero, near zero, and far smaller than their bias, among ordinary ones."""
    tensors = inputs((6, 96), dtype)
    tensors[2][3], tensors[2][40], tensors[2][70:75] = 0.0, 1e-6, 1e-3
    tensors[3][70:80] = 5.0
    assert_within_twice_naive(tensors, dropout=dropout)


@pytest.mark.parametrize(
    ("branch_dtype", "residual_dtype"),
    [(torch.bfloat16, torch.float32), (torch.float32, torch.bfloat16)],
)
@pytest.mark.parametrize(("activation", "dropout"), list(product(["none", "gelu"], [0.0, 0.25])))
def test_types_may_differ(branch_dtype, residual_dtype, activation, dropout):
    tensors = inputs((4, 48), torch.bfloat16, True, torch.float32)
    tensors[0], tensors[1] = tensors[0].to(branch_dtype), tensors[1].to(residual_dtype)
    options = {"activation": activation, "dropout": dropout}
    ours = with_gradients(call, tensors, **options)
    exact = with_gradients(lambda t, **o: call(t, "torch", **o), tensors, **options)
    assert ours[0][0].dtype == residual_dtype
    assert [g.dtype for g in ours[1]] == [t.dtype for t in tensors]
    for our, true in zip([*ours[0], *ours[1]], [*exact[0], *exact[1]], strict=True):
        torch.testing.assert_close(our, true, rtol=2e-2, atol=3e-2)


def test_non_contiguous_inputs():
    tensors = inputs((6, 4, 80), torch.float32)
    tensors = [tensors[0][..., ::2], tensors[1].transpose(0, 1)[:, :, :40].transpose(0, 1),
               tensors[2][::2], tensors[3][40:]]  # fmt: skip
    assert not any(tensor.is_contiguous() for tensor in tensors[:3])
    assert_within_twice_naive(tensors, dropout=0.1)


@pytest.mark.parametrize("shape", [(0, 6), (3, 0, 8)])
@pytest.mark.parametrize("is_prenorm", [False, True])
def test_empty(shape, is_prenorm):
    outputs, gradients = with_gradients(call, inputs(shape, torch.float32), is_prenorm=is_prenorm)
    assert all(output.shape == shape for output in outputs)
    assert [gradient.shape for gradient in gradients[:2]] == [shape, shape]
    assert all((gradient == 0).all() for gradient in gradients[2:])


def test_fp64_is_refused():
    with pytest.raises(ValueError, match="use torch for fp64"):
        call(inputs((2, 8), torch.float64))


@pytest.mark.parametrize("width", [32, 30])
def test_forward_and_backward_drop_the_same_elements(width):
    branch = random(16, width, seed=1).abs() + 0.1
    tensors = [branch, torch.zeros_like(branch), *inputs((16, width), torch.float32)[2:]]
    outputs, gradients = with_gradients(call, tensors, dropout=0.4, stream=3, is_prenorm=True)
    kept = keep_mask_reference(seed_of(), 3, (16, width), 0.4)
    assert torch.equal(outputs[1] != 0, kept)
    assert torch.equal(gradients[0] != 0, kept)
    torch.testing.assert_close(outputs[1], torch.where(kept, branch / 0.6, 0.0))


def test_seeds_and_streams_drop_other_elements_and_the_same_seed_the_same():
    tensors = inputs((32, 64), torch.float32)
    options = {"epsilon": EPSILON, "dropout": 0.5, "is_prenorm": True, "backend": "triton"}
    sums = [
        residual_norm(*tensors, seed=seed_of(number), stream=stream, **options)[1]
        for number, stream in [(1, 0), (1, 1), (2, 0), (1, 0)]
    ]
    assert torch.equal(sums[0], sums[3])
    for other in sums[1:3]:
        differs = (sums[0] != other).double().mean().item()
        assert abs(differs - 0.5) < 0.06


def test_a_seed_of_one_element_is_as_good_as_a_scalar():
    tensors = inputs((4, 32), torch.float32)
    options = {"epsilon": EPSILON, "dropout": 0.5, "backend": "triton"}
    scalar = residual_norm(*tensors, seed=seed_of(), **options)
    assert torch.equal(scalar, residual_norm(*tensors, seed=seed_of().reshape(1), **options))


@pytest.mark.parametrize(
    "options",
    [{}, {"dropout": 0.1}, {"activation": "gelu", "dropout": 0.1}, {"is_prenorm": True}],
)
def test_what_is_kept_for_the_norm_alone_is_the_branch_and_two_numbers_per_row(options):
    tensors = [t.requires_grad_() for t in inputs((6, 48), torch.bfloat16)]
    kept = {}

    def keep(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        outputs = call(tensors, **options)
    shared = [*outputs, *tensors[1:]]
    own = {
        k: v for k, v in kept.items() if k not in [t.untyped_storage().data_ptr() for t in shared]
    }
    seed_bytes = 8
    assert sum(own.values()) <= 2 * tensors[0].numel() + 8 * 6 + seed_bytes


def test_a_row_does_not_depend_on_the_others():
    tensors = inputs((9, 70), torch.float32)
    before = with_gradients(call, tensors, dropout=0.2)
    changed = [tensor.clone() for tensor in tensors]
    changed[0][4], changed[1][4] = 100.0, float("nan")
    after = with_gradients(call, changed, dropout=0.2)
    others = [row for row in range(9) if row != 4]
    assert torch.equal(before[0][0][others], after[0][0][others])
    assert all(torch.equal(before[1][i][others], after[1][i][others]) for i in range(2))


@pytest.mark.parametrize("shape", [(13, 5), (21, 130), (2, 1500)])
def test_every_element_of_the_outputs_is_written_and_no_other(shape):
    """Buffers full of NaN, with a guard behind them."""
    num_rows, width = shape
    branch, residual, weight, bias, branch_bias = inputs(shape, torch.float32, True)
    buffers = []

    def guarded(*size):
        numel = torch.Size(size).numel()
        buffers.append((torch.full((numel + 64,), float("nan"), device=DEVICE), numel))
        return buffers[-1][0][:numel].view(size)

    dropout = Dropout(0.1, seed_of(), 0)
    normed, summed, statistics = guarded(*shape), guarded(*shape), guarded(2, num_rows)
    launch_forward(
        branch, residual, weight, bias, branch_bias, dropout, EPSILON, True, normed, summed,
        statistics,
    )  # fmt: skip
    partials = guarded(num_partials(num_rows, width, torch.float32, DEVICE), 3, width)
    gradients = guarded(*shape), guarded(*shape)
    launch_backward(
        normed, summed, summed, branch, None, weight, bias, branch_bias, dropout, statistics, True,
        True, *gradients, partials,
    )  # fmt: skip
    launch_reduction(partials, guarded(3, width))
    assert all(torch.isfinite(buffer[:numel]).all() for buffer, numel in buffers)
    assert all(torch.isnan(buffer[numel:]).all() for buffer, numel in buffers)


def test_many_rows_share_a_program():
    """More tiles of rows than programs: each adds up several, and a second launch adds those."""
    with trying("residual_norm_backward", {"num_programs": 3, "num_warps": 4}):
        assert num_partials(60, 96, torch.float32, DEVICE) == 3
        assert_within_twice_naive(inputs((60, 96), torch.float32, True), dropout=0.1)


def test_inputs_are_left_alone_and_the_same_bits_come_every_time():
    tensors = inputs((40, 64), torch.float32, True)
    before = [tensor.clone() for tensor in tensors]
    first = with_gradients(call, tensors, dropout=0.1, activation="gelu")
    second = with_gradients(call, tensors, dropout=0.1, activation="gelu")
    assert all(torch.equal(a, b) for a, b in zip(before, tensors, strict=True))
    assert torch.equal(first[0][0], second[0][0])
    assert all(torch.equal(a, b) for a, b in zip(first[1], second[1], strict=True))


def test_only_one_of_two_outputs_used():
    tensors = [t.requires_grad_() for t in inputs((4, 32), torch.float32)]
    normed, summed = call(tensors, is_prenorm=True)
    (gradient,) = torch.autograd.grad(summed.sum(), tensors[:1], retain_graph=True)
    assert (gradient == 1).all()
    expected = torch.autograd.grad(call(tensors, "torch")[0].square().sum(), tensors)
    ours = torch.autograd.grad(normed.square().sum(), tensors)
    for our, true in zip(ours, expected, strict=True):
        torch.testing.assert_close(our, true, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("is_prenorm", [False, True])
@pytest.mark.parametrize("dropout", [0.0, 0.2])
def test_compiled_code_gives_the_same_bits(dropout, is_prenorm):
    tensors = inputs((6, 40), torch.float32)
    options = {"dropout": dropout, "is_prenorm": is_prenorm}
    plain = with_gradients(call, tensors, **options)
    compiled_call = torch.compile(call, backend="aot_eager", fullgraph=True)
    compiled = with_gradients(compiled_call, tensors, **options)
    assert all(torch.equal(a, b) for a, b in zip(plain[0], compiled[0], strict=True))
    assert all(torch.equal(a, b) for a, b in zip(plain[1], compiled[1], strict=True))


def test_the_operator_keeps_its_promises_to_compilers():
    tensors = [t.requires_grad_() for t in inputs((4, 20), torch.float32, True)]
    for is_gelu, is_prenorm in [(False, False), (True, True)]:
        arguments = (*tensors, seed_of(), EPSILON, 0.1, 1, is_gelu, is_prenorm)
        torch.library.opcheck(forward_operator, arguments)


def test_autocast_and_deterministic_mode_change_nothing():
    tensors = inputs((6, 40), torch.float32)
    plain = with_gradients(call, tensors, dropout=0.1)
    torch.use_deterministic_algorithms(True)
    try:
        with torch.autocast(DEVICE.type, dtype=torch.bfloat16):
            other = with_gradients(call, tensors, dropout=0.1)
    finally:
        torch.use_deterministic_algorithms(False)
    assert torch.equal(plain[0][0], other[0][0])
    assert all(torch.equal(a, b) for a, b in zip(plain[1], other[1], strict=True))


@ON_GPU
def test_a_replayed_graph_draws_a_new_mask_that_forward_and_backward_share():
    branch = torch.ones(64, 768, device=DEVICE, requires_grad=True)
    rest = [t.requires_grad_() for t in inputs((64, 768), torch.float32)[1:]]
    rest[0] = torch.zeros_like(rest[0]).requires_grad_()

    def step():
        _, summed = residual_norm(
            branch, *rest, epsilon=EPSILON, dropout=0.5, seed=draw_seed(DEVICE), is_prenorm=True,
            backend="triton",
        )  # fmt: skip
        return summed.detach(), torch.autograd.grad(summed.sum(), branch)[0]

    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        summed, gradient = step()
    masks = []
    for _ in range(3):
        graph.replay()
        assert torch.equal(summed != 0, gradient != 0)
        masks.append(summed != 0)
    assert not torch.equal(masks[0], masks[1])
    assert not torch.equal(masks[1], masks[2])


@ON_GPU
def test_more_elements_than_32_bits_can_count():
    num_rows, width = 2**22 + 5, 512
    parameters = inputs((1, width), torch.bfloat16)[2:]
    branch = torch.randn(num_rows, width, device=DEVICE, dtype=torch.bfloat16, requires_grad=True)
    residual = torch.randn(num_rows, width, device=DEVICE, dtype=torch.bfloat16)
    options = {"epsilon": EPSILON, "backend": "triton"}
    normed = residual_norm(branch, residual, *parameters, **options)
    (gradient,) = torch.autograd.grad(normed, branch, torch.ones_like(normed))
    last = branch.detach()[-8:].requires_grad_()
    expected = residual_norm(last, residual[-8:], *parameters, **options)
    assert torch.equal(normed[-8:], expected)
    (small,) = torch.autograd.grad(expected, last, torch.ones_like(expected))
    assert torch.equal(gradient[-8:], small)
