"""The alignment sums in Triton: all blocks in one launch, forward and backward.

Legend: P positions (rows times length), D features, K blocks, T tiles of positions.

Blocks are separate tensors. Their pointers travel as a tuple argument, so that there is no
table of addresses to copy to the device and each pointer keeps its type and alignment. Program
(t, k) works on tile t of block k. Partial sums are stored per tile and added up afterwards: no
atomics, the same bits every time.
"""

# Triton brings no types, and its functions take pointers and compile-time constants.
# mypy: disable-error-code="untyped-decorator,no-untyped-def"

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

TILE_ELEMENTS = 4096
MAX_FEATURES_PER_STEP = 1024
NUM_WARPS = 4


@triton.jit
def select_block(pointers, block, NUM_BLOCKS: tl.constexpr):
    """Returns ``pointers[block]`` for an index known only at run time."""
    pointer = pointers[0]
    for index in tl.static_range(1, NUM_BLOCKS):
        if block == index:
            pointer = pointers[index]
    return pointer


@triton.jit
def counted_positions(valid_P, positions, num_positions, HAS_VALID: tl.constexpr):
    """Returns which positions of a tile exist and count."""
    counted = positions < num_positions
    if HAS_VALID:
        counted = counted & (tl.load(valid_P + positions, mask=counted, other=0) != 0)
    return counted


@triton.jit
def forward_kernel(
    outputs_KPD,
    anchors_KPD,
    valid_P,
    partial_sums_KT,
    num_positions,
    num_features,
    NUM_BLOCKS: tl.constexpr,
    HAS_VALID: tl.constexpr,
    TILE_P: tl.constexpr,
    TILE_D: tl.constexpr,
):
    """Stores the sum of ``(output - anchor)^2 / D`` over one tile of one block."""
    tile = tl.program_id(0)
    block = tl.program_id(1)
    output_PD = select_block(outputs_KPD, block, NUM_BLOCKS)
    anchor_PD = select_block(anchors_KPD, block, NUM_BLOCKS)
    positions = tile.to(tl.int64) * TILE_P + tl.arange(0, TILE_P)
    counted = counted_positions(valid_P, positions, num_positions, HAS_VALID)
    squares = tl.zeros((TILE_P, TILE_D), dtype=tl.float32)
    for start in range(0, num_features, TILE_D):
        features = start + tl.arange(0, TILE_D)
        offsets = positions[:, None] * num_features + features[None, :]
        mask = counted[:, None] & (features < num_features)[None, :]
        output = tl.load(output_PD + offsets, mask=mask, other=0.0).to(tl.float32)
        anchor = tl.load(anchor_PD + offsets, mask=mask, other=0.0).to(tl.float32)
        difference = output - anchor
        squares += difference * difference
    total = tl.sum(tl.sum(squares, axis=1), axis=0) / num_features
    tl.store(partial_sums_KT + block.to(tl.int64) * tl.num_programs(0) + tile, total)


@triton.jit
def backward_kernel(
    outputs_KPD,
    anchors_KPD,
    valid_P,
    sums_gradient_K,
    gradients_KPD,
    num_positions,
    num_features,
    NUM_BLOCKS: tl.constexpr,
    HAS_VALID: tl.constexpr,
    TILE_P: tl.constexpr,
    TILE_D: tl.constexpr,
):
    """Stores ``2 (output - anchor) / D * sums_gradient`` over one tile; 0 where not valid."""
    tile = tl.program_id(0)
    block = tl.program_id(1)
    output_PD = select_block(outputs_KPD, block, NUM_BLOCKS)
    anchor_PD = select_block(anchors_KPD, block, NUM_BLOCKS)
    gradient_PD = select_block(gradients_KPD, block, NUM_BLOCKS)
    positions = tile.to(tl.int64) * TILE_P + tl.arange(0, TILE_P)
    counted = counted_positions(valid_P, positions, num_positions, HAS_VALID)
    scale = 2.0 * tl.load(sums_gradient_K + block).to(tl.float32) / num_features
    for start in range(0, num_features, TILE_D):
        features = start + tl.arange(0, TILE_D)
        offsets = positions[:, None] * num_features + features[None, :]
        exists = (positions < num_positions)[:, None] & (features < num_features)[None, :]
        mask = counted[:, None] & exists
        output = tl.load(output_PD + offsets, mask=mask, other=0.0).to(tl.float32)
        anchor = tl.load(anchor_PD + offsets, mask=mask, other=0.0).to(tl.float32)
        gradient = (output - anchor) * scale
        tl.store(gradient_PD + offsets, gradient.to(gradient_PD.dtype.element_ty), mask=exists)


def tile_sizes(num_features: int) -> tuple[int, int]:
    """Returns (positions, features) of one tile; fixed, so that sums are the same on any GPU."""
    features = min(triton.next_power_of_2(num_features), MAX_FEATURES_PER_STEP)
    return max(TILE_ELEMENTS // features, 1), features


def num_tiles(num_positions: int, num_features: int) -> int:
    """Returns T, the number of tiles of positions."""
    return -(-num_positions // tile_sizes(num_features)[0])


def launch_forward(
    outputs: Sequence[Tensor],
    anchors: Sequence[Tensor],
    valid: Tensor | None,
    partial_sums: Tensor,
) -> None:
    """Fills fp32 ``partial_sums`` ``[K, T]`` from contiguous ``[P, D]`` blocks, mask ``[P]``."""
    num_positions, num_features = outputs[0].shape
    tile_positions, tile_features = tile_sizes(num_features)
    forward_kernel[(partial_sums.shape[1], len(outputs))](
        tuple(outputs),
        tuple(anchors),
        mask_pointer(valid, outputs[0]),
        partial_sums,
        num_positions,
        num_features,
        NUM_BLOCKS=len(outputs),
        HAS_VALID=valid is not None,
        TILE_P=tile_positions,
        TILE_D=tile_features,
        num_warps=NUM_WARPS,
    )


def launch_backward(
    outputs: Sequence[Tensor],
    anchors: Sequence[Tensor],
    valid: Tensor | None,
    sums_gradient: Tensor,
    gradients: Sequence[Tensor],
) -> None:
    """Fills ``gradients``, contiguous ``[P, D]`` per block, from fp32 ``sums_gradient`` ``[K]``."""
    num_positions, num_features = outputs[0].shape
    tile_positions, tile_features = tile_sizes(num_features)
    backward_kernel[(num_tiles(num_positions, num_features), len(outputs))](
        tuple(outputs),
        tuple(anchors),
        mask_pointer(valid, outputs[0]),
        sums_gradient,
        tuple(gradients),
        num_positions,
        num_features,
        NUM_BLOCKS=len(outputs),
        HAS_VALID=valid is not None,
        TILE_P=tile_positions,
        TILE_D=tile_features,
        num_warps=NUM_WARPS,
    )


def mask_pointer(valid: Tensor | None, stand_in: Tensor) -> Tensor:
    """Returns the mask as bytes, or any tensor in its place where there is no mask to read."""
    return stand_in if valid is None else valid.view(torch.uint8)
