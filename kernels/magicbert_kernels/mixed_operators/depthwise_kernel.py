"""Depthwise convolutions of several widths in one launch, each row with its operator's filter.

Legend: R rows, S positions of a row, H channels, K taps of a filter, G sweeps of a program,
O operators.

A sweep walks one chunk of a row from left to right, for a tile of channels, and keeps the last K
positions in registers: each input element is loaded once, and the halo. A program runs G sweeps
over neighbouring chunks of one row. So a program has one operator, and branches to a sweep that was
compiled for that operator's width: a narrow filter pays nothing for a wide neighbour.
"""

# Triton brings no types, and its functions take pointers and compile-time constants; its tuples
# grow by addition.
# mypy: disable-error-code="untyped-decorator,no-untyped-def,assignment,var-annotated"
# ruff: noqa: RUF005

from __future__ import annotations

from collections.abc import Sequence

import triton
import triton.language as tl
from torch import Tensor

from magicbert_kernels.launch_table import launch_settings
from magicbert_kernels.mixed_operators.kernel import UNALIGNED, chunk_width

MAX_SWEEP_LENGTH = 32
# Positions that are loaded before the first of them is used.
STEP = 4
NUM_THREADS = 128
VECTOR_BYTES = 16
MAX_TILE_H = 256


@triton.jit
def load_position(
    hidden_GH, ids_G, positions, length, num_channels, is_channel, HAS_SEGMENTS: tl.constexpr
):
    """Returns one position of every sweep: fp32 ``[G, H]``, and its segment id ``[G]``.

    Outside the row and on padding the value is zero, and the id 0.
    """
    inside = (positions >= 0) & (positions < length)
    ids = inside.to(tl.int32)
    if HAS_SEGMENTS:
        ids = tl.load(ids_G + positions, mask=inside, other=0).to(tl.int32)
    mask = inside[:, None] & is_channel[None, :]
    offsets = positions.to(tl.int64)[:, None] * num_channels
    values = tl.load(hidden_GH + offsets, mask=mask, other=0.0).to(tl.float32)
    # Selected after the load: the load need not wait for the ids.
    return tl.where((ids > 0)[:, None], values, 0.0), ids


@triton.jit
def sweep(
    hidden_GH,
    ids_G,
    output_GH,
    weight_H,
    bias_H,
    begins,
    length,
    num_channels,
    is_channel,
    K: tl.constexpr,
    HAS_SEGMENTS: tl.constexpr,
    SWEEP_S: tl.constexpr,
    STEP_S: tl.constexpr,
):
    """Stores the convolution of width K of ``SWEEP_S`` positions of every sweep."""
    MIDDLE: tl.constexpr = K // 2
    bias = tl.load(bias_H, mask=is_channel, other=0.0).to(tl.float32)[None, :]
    taps = ()
    for tap in tl.static_range(K):
        row = tl.load(weight_H + tap * num_channels, mask=is_channel, other=0.0)
        taps = taps + (row.to(tl.float32)[None, :],)
    window = ()
    ids = ()
    for index in tl.static_range(K - 1):
        value, new_ids = load_position(
            hidden_GH, ids_G, begins + (index - MIDDLE), length, num_channels, is_channel,
            HAS_SEGMENTS,
        )  # fmt: skip
        window = window + (value,)
        ids = ids + (new_ids,)
    for first in range(0, SWEEP_S, STEP_S):
        for step in tl.static_range(STEP_S):
            value, new_ids = load_position(
                hidden_GH, ids_G, begins + (first + step + MIDDLE), length, num_channels,
                is_channel, HAS_SEGMENTS,
            )  # fmt: skip
            window = window + (value,)
            ids = ids + (new_ids,)
        for step in tl.static_range(STEP_S):
            total = bias + taps[MIDDLE] * window[step + MIDDLE]
            for tap in tl.static_range(K):
                if tap != MIDDLE:
                    seen = window[step + tap]
                    if HAS_SEGMENTS:
                        is_same = ids[step + tap] == ids[step + MIDDLE]
                        seen = tl.where(is_same[:, None], seen, 0.0)
                    total += taps[tap] * seen
            positions = begins + (first + step)
            tl.store(
                output_GH + positions.to(tl.int64)[:, None] * num_channels,
                total.to(output_GH.dtype.element_ty),
                mask=(positions < length)[:, None] & is_channel[None, :],
            )
        window = window[STEP_S:]
        ids = ids[STEP_S:]


@triton.jit(do_not_specialize_on_alignment=UNALIGNED)
def depthwise_kernel(
    hidden_RSH,
    weights_KH,
    biases_H,
    operator_ids_R,
    segment_ids_RS,
    output_RSH,
    length,
    num_channels,
    WIDTHS: tl.constexpr,
    HAS_SEGMENTS: tl.constexpr,
    SWEEP_S: tl.constexpr,
    STEP_S: tl.constexpr,
    TILE_G: tl.constexpr,
    TILE_H: tl.constexpr,
):
    """Stores the convolutions of G neighbouring chunks of one row, for a tile of channels."""
    programs_per_row = tl.cdiv(length, SWEEP_S * TILE_G)
    row = (tl.program_id(0) // programs_per_row).to(tl.int64)
    sweeps = (tl.program_id(0) % programs_per_row) * TILE_G + tl.arange(0, TILE_G)
    begins = sweeps * SWEEP_S
    channels = tl.program_id(1) * TILE_H + tl.arange(0, TILE_H)
    is_channel = channels < num_channels
    offsets = row * length * num_channels + channels[None, :]
    operator = tl.load(operator_ids_R + row)
    for index in tl.static_range(len(WIDTHS)):
        if operator == index:
            sweep(
                hidden_RSH + offsets, segment_ids_RS + row * length, output_RSH + offsets,
                weights_KH[index] + channels, biases_H[index] + channels,
                begins, length, num_channels, is_channel,
                K=WIDTHS[index], HAS_SEGMENTS=HAS_SEGMENTS, SWEEP_S=SWEEP_S, STEP_S=STEP_S,
            )  # fmt: skip


def sweep_length(length: int) -> int:
    """Returns how many positions a sweep takes: few different numbers, each compiled once."""
    return min(max(int(triton.next_power_of_2(length)), STEP), MAX_SWEEP_LENGTH)


def tile_sizes(num_channels: int, element_bytes: int) -> tuple[int, int]:
    """Returns (sweeps, channels) of a program: every thread holds 16 bytes of a position."""
    channels = min(chunk_width(num_channels), MAX_TILE_H)
    return max(NUM_THREADS * VECTOR_BYTES // element_bytes // channels, 1), channels


def launch_depthwise(
    hidden_RSH: Tensor,
    weights_KH: Sequence[Tensor],
    biases_H: Sequence[Tensor],
    operator_ids_R: Tensor,
    segment_ids_RS: Tensor | None,
    output_RSH: Tensor,
) -> None:
    """Fills the output, contiguous like the input and of its shape and type."""
    num_rows, length, num_channels = hidden_RSH.shape
    tile_sweeps, tile_channels = tile_sizes(num_channels, hidden_RSH.element_size())
    settings = launch_settings(
        "mixed_depthwise_convolution", num_channels, hidden_RSH.dtype, hidden_RSH.device
    )
    grid = (
        num_rows * triton.cdiv(length, sweep_length(length) * tile_sweeps),
        triton.cdiv(num_channels, tile_channels),
    )
    depthwise_kernel[grid](
        hidden_RSH,
        tuple(weights_KH),
        tuple(biases_H),
        operator_ids_R,
        # Any pointer stands where there are no ids to read.
        operator_ids_R if segment_ids_RS is None else segment_ids_RS,
        output_RSH,
        length,
        num_channels,
        WIDTHS=tuple(len(weight) for weight in weights_KH),
        HAS_SEGMENTS=segment_ids_RS is not None,
        SWEEP_S=sweep_length(length),
        STEP_S=STEP,
        TILE_G=tile_sweeps,
        TILE_H=tile_channels,
        **settings,
    )
