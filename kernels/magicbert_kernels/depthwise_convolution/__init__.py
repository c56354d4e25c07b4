"""A depthwise convolution along positions that never crosses a segment."""

from __future__ import annotations

from torch import Tensor

from magicbert_kernels.backend import Backend
from magicbert_kernels.depthwise_convolution.reference import (
    check_inputs,
    depthwise_convolution_reference,
)

__all__ = ["TRITON_KERNEL_SIZES", "depthwise_convolution", "depthwise_convolution_reference"]

# Each size is a kernel of its own, whose filter and sums live in registers: 7 is what fits.
TRITON_KERNEL_SIZES = (3, 5, 7)


def depthwise_convolution(
    hidden_BSH: Tensor,
    weight_KH: Tensor,
    bias_H: Tensor,
    segment_ids_BS: Tensor | None,
    *,
    backend: Backend,
) -> Tensor:
    """Returns ``bias + sum_k weight[k] * hidden[s + k - K // 2]`` within each segment.

    Two positions of a row see each other where their segment ids are equal and above 0. A position
    with id 0 is padding: nothing sees it, not even NaN in it, and its own output is the bias.

    Args:
        hidden_BSH: ``[rows, positions, channels]``, floating point.
        weight_KH: one filter of K taps per channel, K odd; may be of another type than ``hidden``.
        bias_H: of the filters, typed as they are.
        segment_ids_BS: integers, 0 = padding; ``None`` = every row is one full segment.
        backend: ``triton`` (K in `TRITON_KERNEL_SIZES`) or ``torch`` (any odd K), see
            `magicbert_kernels.backend.resolve_backend`.

    Returns:
        Shape and type of ``hidden_BSH``.

    Raises:
        ValueError: shapes, types or devices do not fit together.
    """
    check_inputs(hidden_BSH, weight_KH, bias_H, segment_ids_BS)
    if backend == "torch":
        return depthwise_convolution_reference(hidden_BSH, weight_KH, bias_H, segment_ids_BS)
    if len(weight_KH) not in TRITON_KERNEL_SIZES:
        raise ValueError(
            f"the triton backend has kernel sizes {TRITON_KERNEL_SIZES}, got {len(weight_KH)}: "
            "use the torch backend"
        )
    # Triton is imported where it runs: the torch backend works without it.
    from magicbert_kernels.depthwise_convolution.autograd import depthwise_convolution_triton

    return depthwise_convolution_triton(hidden_BSH, weight_KH, bias_H, segment_ids_BS)
