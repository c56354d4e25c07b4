"""How the depthwise convolution is cut into programs, and its launches into given buffers.

Legend: B rows, S positions, H channels, K taps of the filter, P programs of the backward along
the positions.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from magicbert_kernels.depthwise_convolution.kernel import (
    backward_kernel,
    forward_kernel,
    reduction_kernel,
)
from magicbert_kernels.launch_table import launch_settings

FORWARD = "depthwise_convolution_forward"
BACKWARD = "depthwise_convolution_backward"
BYTES_PER_THREAD = 16
THREADS_PER_WARP = 32
# With this many, filter and sums leave few registers for positions on their way.
MAX_TAPS = 7
REDUCTION_TILE_P = 128
REDUCTION_TILE_C = 32
REDUCTION_WARPS = 4


@dataclass(frozen=True, slots=True)
class Sweeps:
    """How one call is cut up; a function of shapes, type and device alone.

    Attributes:
        tile_channels: channels of a program.
        num_tiles: tiles that cover all channels.
        chunk: positions of a row that are swept in one go, a multiple of ``step``.
        num_chunks: chunks of all rows.
        step: positions that are loaded at a time.
        num_warps: warps of a program.
        chunks_per_program: chunks that one program of the backward sweeps.
    """

    tile_channels: int
    num_tiles: int
    chunk: int
    num_chunks: int
    step: int
    num_warps: int
    chunks_per_program: int

    @property
    def num_programs(self) -> int:
        """P, programs of the backward along the positions: as many partial sums are written."""
        return ceil_div(self.num_chunks, self.chunks_per_program)

    @classmethod
    def of(cls, kernel: str, hidden_BSH: Tensor, num_taps: int) -> Sweeps:
        """Returns the sweeps of a kernel over a tensor that is not empty.

        Chunks are halved while there are too few of them to fill the device: a chunk loads its halo
        again, a device that is not full waits for memory. The backward runs no more programs than
        the device holds at a time, so that they end together and leave few partial sums.
        """
        num_rows, length, num_channels = hidden_BSH.shape
        settings = launch_settings(kernel, num_channels, hidden_BSH.dtype, hidden_BSH.device)
        tile = tile_channels(num_channels, hidden_BSH.element_size(), settings["num_warps"])
        num_tiles = ceil_div(num_channels, tile)
        step = settings["step"] if num_taps < MAX_TAPS else settings["step_of_most_taps"]
        programs = max(settings["programs"] // num_tiles, 1)
        chunk = settings["max_chunk"]
        while chunk > settings["min_chunk"] and num_rows * ceil_div(length, chunk) < programs:
            chunk //= 2
        num_chunks = num_rows * ceil_div(length, chunk)
        return cls(
            tile_channels=tile,
            num_tiles=num_tiles,
            chunk=even_chunk(length, chunk, step),
            num_chunks=num_chunks,
            step=step,
            num_warps=settings["num_warps"],
            chunks_per_program=ceil_div(num_chunks, programs),
        )


def tile_channels(num_channels: int, element_size: int, num_warps: int) -> int:
    """Returns the channels of a program: 16 bytes a thread, fewer where a third would be idle."""
    tile = num_warps * THREADS_PER_WARP * BYTES_PER_THREAD // element_size
    while tile > THREADS_PER_WARP and 3 * ceil_div(num_channels, tile) * tile > 4 * num_channels:
        tile //= 2
    return tile


def even_chunk(length: int, chunk: int, step: int) -> int:
    """Returns the size of equal chunks of a row, as many as of size ``chunk``."""
    return ceil_div(ceil_div(length, ceil_div(length, chunk)), step) * step


def ceil_div(numerator: int, denominator: int) -> int:
    """Returns the quotient rounded up."""
    return -(-numerator // denominator)


def launch_forward(
    hidden_BSH: Tensor,
    weight_KH: Tensor,
    bias_H: Tensor,
    segment_ids_BS: Tensor | None,
    output_BSH: Tensor,
) -> None:
    """Fills ``output_BSH``; all tensors are contiguous and none is empty."""
    sweeps = Sweeps.of(FORWARD, hidden_BSH, len(weight_KH))
    forward_kernel[(sweeps.num_chunks, sweeps.num_tiles)](
        hidden_BSH,
        weight_KH,
        bias_H,
        id_pointer(segment_ids_BS, hidden_BSH),
        output_BSH,
        hidden_BSH.shape[1],
        hidden_BSH.shape[2],
        sweeps.chunk,
        K=len(weight_KH),
        HAS_SEGMENTS=segment_ids_BS is not None,
        TILE_H=sweeps.tile_channels,
        STEP=sweeps.step,
        num_warps=sweeps.num_warps,
    )


def partial_sums(hidden_BSH: Tensor, num_taps: int) -> Tensor:
    """Returns the buffer ``[P, K + 1, H]`` for the backward's partial sums."""
    num_programs = Sweeps.of(BACKWARD, hidden_BSH, num_taps).num_programs
    sizes = (num_programs, num_taps + 1, hidden_BSH.shape[2])
    return torch.empty(sizes, dtype=torch.float32, device=hidden_BSH.device)


def launch_backward(
    grad_BSH: Tensor,
    hidden_BSH: Tensor,
    weight_KH: Tensor,
    segment_ids_BS: Tensor | None,
    grad_hidden_BSH: Tensor,
    partial_PTH: Tensor,
) -> None:
    """Fills ``grad_hidden_BSH`` and ``partial_PTH``; all are contiguous and none is empty."""
    sweeps = Sweeps.of(BACKWARD, hidden_BSH, len(weight_KH))
    backward_kernel[(sweeps.num_programs, sweeps.num_tiles)](
        grad_BSH,
        hidden_BSH,
        weight_KH,
        id_pointer(segment_ids_BS, hidden_BSH),
        grad_hidden_BSH,
        partial_PTH,
        sweeps.num_chunks,
        sweeps.chunks_per_program,
        hidden_BSH.shape[1],
        hidden_BSH.shape[2],
        sweeps.chunk,
        K=len(weight_KH),
        HAS_SEGMENTS=segment_ids_BS is not None,
        TILE_H=sweeps.tile_channels,
        STEP=sweeps.step,
        num_warps=sweeps.num_warps,
    )


def launch_reduction(partial_PTH: Tensor, grad_weight_KH: Tensor, grad_bias_H: Tensor) -> None:
    """Fills the gradients of weight and bias, contiguous, from the partial sums."""
    num_columns = grad_weight_KH.numel() + grad_bias_H.numel()
    reduction_kernel[(ceil_div(num_columns, REDUCTION_TILE_C),)](
        partial_PTH,
        grad_weight_KH,
        grad_bias_H,
        len(partial_PTH),
        grad_weight_KH.numel(),
        num_columns,
        TILE_P=REDUCTION_TILE_P,
        TILE_C=REDUCTION_TILE_C,
        num_warps=REDUCTION_WARPS,
    )


def id_pointer(segment_ids_BS: Tensor | None, stand_in: Tensor) -> Tensor:
    """Returns the ids, or any tensor in their place where there are none to read."""
    return stand_in if segment_ids_BS is None else segment_ids_BS
