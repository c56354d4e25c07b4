"""What every kernel does to memory, counted without a clock; run by test_kernel_accounting.py.

In the interpreter every address is seen. A floor is in passes: bytes of one tensor of hidden
states. Small things (weights, masks, partial sums) may add `SMALL` of a pass.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pytest
import torch
from kernel_traffic import InnerAccounting, KernelTraffic
from magicbert_kernels.alignment_loss import alignment_sums
from magicbert_kernels.bias_gelu import bias_gelu
from magicbert_kernels.bias_gelu.kernel import new_partial_sums
from magicbert_kernels.depthwise_convolution import depthwise_convolution
from magicbert_kernels.depthwise_convolution.launches import partial_sums
from magicbert_kernels.linear_cross_entropy import linear_cross_entropy
from magicbert_kernels.philox import draw_seed
from magicbert_kernels.residual_norm import residual_norm
from magicbert_kernels.residual_norm.autograd import num_partials
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

ROWS, LENGTH, WIDTH = 2, 64, 256
SMALL = 0.05
# What the programs of this small size read beside their own tokens.
HALO = 0.6
TYPES = [torch.float32, torch.bfloat16]


@dataclass(frozen=True)
class Work:
    """One direction of an operation.

    Attributes:
        launches: of kernels.
        distinct_bytes: that the kernels must bring from memory or write to it.
        requested_bytes: that they ask for, what several programs load counted each time.
        operator_bytes: touched by operators of torch beside the kernels.
    """

    launches: int
    distinct_bytes: int
    requested_bytes: int
    operator_bytes: int

    def passes(self, one: int) -> float:
        """Returns all that passes between memory and the device, over the bytes of a tensor."""
        return (self.distinct_bytes + self.operator_bytes) / one


def counted(work: Callable[[], object]) -> Work:
    with KernelTraffic() as kernels, InnerAccounting() as operators:
        work()
    return Work(
        sum(kernels.launches.values()),
        kernels.distinct_bytes,
        kernels.bytes_read + kernels.bytes_written,
        operators.bytes_touched,
    )


def both_directions(function: Callable[[], Tensor], leaves: Sequence[Tensor]) -> tuple[Work, Work]:
    """Counts forward and backward; the upstream gradient, of ones, is there before."""
    kept: list[Tensor] = []
    forward = counted(lambda: kept.append(function()))
    (output,) = kept
    upstream = torch.ones_like(output)
    return forward, counted(lambda: torch.autograd.grad(output, leaves, upstream))


def saved_bytes(function: Callable[[], object], inputs: Sequence[Tensor]) -> int:
    """Returns the bytes kept for the backward that are neither inputs nor parameters."""
    known = {tensor.untyped_storage().data_ptr() for tensor in inputs}
    saved: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            saved[storage.data_ptr()] = storage.nbytes()
        return tensor

    with saved_tensors_hooks(note, lambda tensor: tensor):
        kept = function()
    del kept
    return sum(saved.values())


def hidden(dtype: torch.dtype, seed: int = 0, *shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape or (ROWS, LENGTH, WIDTH), generator=generator).to(dtype)


def twice(sums: Tensor) -> int:
    """Returns the bytes of writing sums of programs and of reading them to add them up."""
    return 2 * size_of(sums)


def size_of(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


@pytest.mark.parametrize("dtype", TYPES, ids=str)
@pytest.mark.parametrize("is_masked", [False, True])
def test_alignment_loss(dtype, is_masked):
    """Both inputs are read once and the gradient is written once, for all blocks in one launch."""
    num_blocks = 3
    outputs = [hidden(dtype, seed).requires_grad_() for seed in range(num_blocks)]
    anchors = [hidden(dtype, 9 + seed) for seed in range(num_blocks)]
    valid = torch.ones(ROWS, LENGTH, dtype=torch.bool) if is_masked else None
    one = num_blocks * size_of(outputs[0])

    def run() -> Tensor:
        return alignment_sums(outputs, anchors, valid, "triton")

    forward, backward = both_directions(run, outputs)
    assert (forward.launches, backward.launches) == (1, 1)
    assert 3 <= forward.passes(one) <= 3 + SMALL
    assert backward.passes(one) <= SMALL
    assert saved_bytes(run, [*outputs, *anchors]) <= (1 + SMALL) * one
    assert forward.requested_bytes <= (3 + SMALL) * one


def test_alignment_loss_without_gradients_reads_both_inputs_once():
    outputs, anchors = ([hidden(torch.bfloat16, seed)] for seed in range(2))
    work = counted(lambda: alignment_sums(outputs, anchors, None, "triton"))
    assert work.launches == 1
    assert 2 <= work.passes(size_of(outputs[0])) <= 2 + SMALL


@pytest.mark.parametrize("dtype", TYPES, ids=str)
@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_bias_gelu(dtype, dropout):
    """Only what goes in is kept: the activation, and the mask, are found again."""
    inner, bias = hidden(dtype).requires_grad_(), hidden(dtype, 1, WIDTH).requires_grad_()
    seed = draw_seed(inner.device)
    one = size_of(inner)

    def run() -> Tensor:
        return bias_gelu(inner, bias, dropout=dropout, seed=seed, backend="triton")

    forward, backward = both_directions(run, [inner, bias])
    sums = twice(new_partial_sums(inner.view(-1, WIDTH)))
    assert (forward.launches, backward.launches) == (1, 1)
    assert 2 <= forward.passes(one) <= 2 + SMALL
    assert 3 <= backward.passes(one) - sums / one <= 3 + SMALL
    assert saved_bytes(run, [inner, bias]) <= 8


@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_residual_norm(dropout):
    """Post-norm keeps its output, which the next operator keeps anyway, and 8 bytes a row.

    The backward without dropout has one gradient for branch and residual.
    """
    branch, residual = (hidden(torch.bfloat16, n).requires_grad_() for n in range(2))
    # As in training: where the bias is larger than the weight, the inputs are read again.
    weight = (1 + 0.1 * hidden(torch.bfloat16, 2, WIDTH)).requires_grad_()
    bias = (0.1 * hidden(torch.bfloat16, 3, WIDTH)).requires_grad_()
    seed = draw_seed(branch.device)
    one, leaves = size_of(branch), [branch, residual, weight, bias]

    def run() -> Tensor:
        return residual_norm(
            branch, residual, weight, bias, epsilon=1e-5, dropout=dropout, seed=seed,
            backend="triton",
        )  # fmt: skip

    forward, backward = both_directions(run, leaves)
    rows = ROWS * LENGTH
    programs = num_partials(rows, WIDTH, torch.bfloat16, branch.device)
    sums = 2 * 4 * programs * 2 * WIDTH
    assert (forward.launches, backward.launches) == (1, 2)
    assert 3 <= forward.passes(one) <= 3 + SMALL
    num_passes = 4 if dropout else 3
    assert num_passes <= backward.passes(one) - sums / one <= num_passes + 2 * SMALL
    assert saved_bytes(run, [*leaves, seed]) <= one + 8 * rows


def test_depthwise_convolution():
    """Every input is brought once; only the halo of a program is asked for by two."""
    dtype, taps = torch.bfloat16, 5
    inputs = hidden(dtype).requires_grad_()
    weight = hidden(dtype, 1, taps, WIDTH).requires_grad_()
    bias = hidden(dtype, 2, WIDTH).requires_grad_()
    ids = torch.ones(ROWS, LENGTH, dtype=torch.long)
    one = size_of(inputs)

    def run() -> Tensor:
        return depthwise_convolution(inputs, weight, bias, ids, backend="triton")

    forward, backward = both_directions(run, [inputs, weight, bias])
    sums = twice(partial_sums(inputs, taps))
    assert (forward.launches, backward.launches) == (1, 2)
    assert 2 <= forward.passes(one) <= 2 + 3 * SMALL
    assert 3 <= backward.passes(one) - sums / one <= 3 + 3 * SMALL
    assert forward.requested_bytes <= (2 + HALO) * one
    assert saved_bytes(run, [inputs, weight, bias, ids]) == 0


def test_linear_cross_entropy_keeps_no_logits():
    """What is kept is as large as the gradients that it is."""
    num_predicted, vocabulary = 40, 640
    given = hidden(torch.float32, 0, num_predicted, 32).requires_grad_()
    weight = hidden(torch.float32, 1, vocabulary, 32).requires_grad_()
    bias = hidden(torch.float32, 2, vocabulary).requires_grad_()
    labels = torch.arange(num_predicted)

    def run() -> Tensor:
        return linear_cross_entropy(given, weight, bias, labels, backend="triton")[0]

    forward, backward = both_directions(run, [given, weight, bias])
    gradients = sum(map(size_of, (given, weight, bias)))
    assert (forward.launches, backward.launches) == (1, 0)
    assert saved_bytes(run, [given, weight, bias]) <= gradients + 64
    # The upstream gradient, a scalar, is multiplied in: read and write once.
    assert backward.operator_bytes <= 2 * gradients + 64
