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
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

ROWS, LENGTH, WIDTH = 2, 64, 256
SMALL = 0.05
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
