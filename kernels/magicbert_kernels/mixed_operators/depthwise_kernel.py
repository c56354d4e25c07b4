"""Depthwise convolutions of several widths in one launch, each row with its operator's filter.

Legend: R rows, S positions of a row, H channels, K taps of a filter.

The sweep is that of `magicbert_kernels.depthwise_convolution`: a program takes one chunk of one
row. So it has one operator, and branches to a sweep that was compiled for that operator's width: a
narrow filter pays nothing for a wide neighbour.
"""

# Triton brings no types, and its functions take pointers and compile-time constants.
# mypy: disable-error-code="untyped-decorator,no-untyped-def"

from __future__ import annotations

from collections.abc import Sequence

import triton
import triton.language as tl
from torch import Tensor

from magicbert_kernels.depthwise_convolution.kernel import chunk_place, sweep
from magicbert_kernels.depthwise_convolution.launches import Sweeps, id_pointer
from magicbert_kernels.mixed_operators.kernel import UNALIGNED

DEPTHWISE = "mixed_depthwise_convolution"


@triton.jit(do_not_specialize=["length", "chunk"], do_not_specialize_on_alignment=UNALIGNED)
def depthwise_kernel(
    hidden_RSH,
    weights_KH,
    biases_H,
    operator_ids_R,
    segment_ids_RS,
    output_RSH,
    length,
    num_channels,
    chunk,
    WIDTHS: tl.constexpr,
    HAS_SEGMENTS: tl.constexpr,
    TILE_H: tl.constexpr,
    STEP: tl.constexpr,
):
    """Stores the convolution of one chunk; grid ``(chunks of all rows, tiles of channels)``."""
    start, begin = chunk_place(tl.program_id(0), length, chunk)
    operator = tl.load(operator_ids_R + tl.program_id(0) // tl.cdiv(length, chunk))
    for index in tl.static_range(len(WIDTHS)):
        if operator == index:
            sweep(
                hidden_RSH, weights_KH[index], biases_H[index], segment_ids_RS, output_RSH,
                start, begin, length, num_channels, chunk,
                WIDTHS[index], HAS_SEGMENTS, TILE_H, STEP,
            )  # fmt: skip


def launch_depthwise(
    hidden_RSH: Tensor,
    weights_KH: Sequence[Tensor],
    biases_H: Sequence[Tensor],
    operator_ids_R: Tensor,
    segment_ids_RS: Tensor | None,
    output_RSH: Tensor,
) -> None:
    """Fills the output, of the input's shape and type; all are contiguous and none is empty."""
    widths = tuple(len(weight) for weight in weights_KH)
    sweeps = Sweeps.of(DEPTHWISE, hidden_RSH, max(widths))
    depthwise_kernel[(sweeps.num_chunks, sweeps.num_tiles)](
        hidden_RSH,
        tuple(weights_KH),
        tuple(biases_H),
        operator_ids_R,
        id_pointer(segment_ids_RS, hidden_RSH),
        output_RSH,
        hidden_RSH.shape[1],
        hidden_RSH.shape[2],
        sweeps.chunk,
        WIDTHS=widths,
        HAS_SEGMENTS=segment_ids_RS is not None,
        TILE_H=sweeps.tile_channels,
        STEP=sweeps.step,
        num_warps=sweeps.num_warps,
    )
