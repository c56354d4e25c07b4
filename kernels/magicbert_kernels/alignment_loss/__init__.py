"""Block-wise squared error between a path's outputs and an anchor's (MAGIC-A)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from magicbert_kernels.alignment_loss.differences import alignment_sums_of_differences
from magicbert_kernels.alignment_loss.reference import alignment_sums_reference, check_inputs
from magicbert_kernels.backend import Backend

__all__ = ["alignment_sums", "alignment_sums_reference"]


def alignment_sums(
    outputs: Sequence[Tensor],
    anchors: Sequence[Tensor],
    valid: Tensor | None,
    backend: Backend,
    *,
    expected_gradient: float = 1.0,
) -> Tensor:
    """Returns fp32 ``[num_blocks]``: per block, sum over valid positions of the mean over features.

    The Triton form writes the outputs' gradients in the forward, so one backward is all that a
    graph allows. Where no gradient is asked for, none is written.

    Args:
        outputs: one ``[..., features]`` per block, all of one shape, type and device.
        anchors: the same for the anchor; they receive no gradient.
        valid: bool ``[...]``, positions that count, or ``None`` for all; what stands elsewhere is
            never read into the sums, not even NaN.
        backend: ``triton`` or ``torch``, see `magicbert_kernels.backend.resolve_backend`.
        expected_gradient: what the gradient of each sum will be: the factors that the caller puts
            before the sums, and the loss scale. Any other gradient is right as well, at the cost
            of reading and writing the outputs' gradients once more.

    Raises:
        ValueError: shapes, types or devices differ.
    """
    check_inputs(outputs, anchors, valid)
    if backend == "torch":
        return alignment_sums_of_differences(outputs, anchors, valid)
    # Triton is imported where it runs: the torch backend works without it.
    from magicbert_kernels.alignment_loss.autograd import alignment_sums_triton

    return alignment_sums_triton(outputs, anchors, valid, expected_gradient)
