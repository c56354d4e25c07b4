"""The alignment sums in Triton: all blocks in one launch, sums and gradients in one pass.

Legend: P positions (rows times length), D features, K blocks, R programs of one block.

Blocks are separate tensors. Their pointers travel as a tuple argument, so that there is no
table of addresses to copy to the device and each pointer keeps its type and alignment. Program
(r, k) works on every R-th tile of block k. Partial sums are stored per program and added up
afterwards: no atomics, the same bits every time.
"""

# Triton brings no types, and its functions take pointers and compile-time constants.
# mypy: disable-error-code="untyped-decorator,no-untyped-def"

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from magicbert_kernels.launch_table import launch_settings

KERNEL = "alignment_loss"
TILE_ELEMENTS = 4096
FEATURE_TILES = (1024, 512, 256, 128, 64, 32)
MAX_PROGRAMS_PER_BLOCK = 1024
# A factor that the caller knew in advance may have been multiplied in another order: 8 units in
# the last place of fp32.
SAME_WITHIN: tl.constexpr = tl.constexpr(2.0**-20)


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
    gradients_KPD,
    partial_sums_KR,
    scale,
    num_positions,
    num_features,
    NUM_BLOCKS: tl.constexpr,
    HAS_VALID: tl.constexpr,
    HAS_GRADIENT: tl.constexpr,
    TILE_P: tl.constexpr,
    TILE_D: tl.constexpr,
):
    """Stores the sum of ``(output - anchor)^2 / D`` over one program's tiles of one block.

    With ``HAS_GRADIENT`` also ``scale * (output - anchor)``, and 0 where not valid.
    """
    program = tl.program_id(0)
    block = tl.program_id(1)
    output_PD = select_block(outputs_KPD, block, NUM_BLOCKS)
    anchor_PD = select_block(anchors_KPD, block, NUM_BLOCKS)
    gradient_PD = select_block(gradients_KPD, block, NUM_BLOCKS)
    first = program.to(tl.int64) * TILE_P
    stride = tl.num_programs(0).to(tl.int64) * TILE_P
    squares = tl.zeros((TILE_P, TILE_D), dtype=tl.float32)
    for turn in range(0, tl.cdiv(num_positions, stride)):
        positions = first + turn * stride + tl.arange(0, TILE_P)
        exists = positions < num_positions
        counted = counted_positions(valid_P, positions, num_positions, HAS_VALID)
        for start in range(0, num_features, TILE_D):
            features = start + tl.arange(0, TILE_D)
            offsets = positions[:, None] * num_features + features[None, :]
            is_feature = (features < num_features)[None, :]
            mask = counted[:, None] & is_feature
            output = tl.load(output_PD + offsets, mask=mask, other=0.0).to(tl.float32)
            anchor = tl.load(anchor_PD + offsets, mask=mask, other=0.0).to(tl.float32)
            difference = output - anchor
            squares += difference * difference
            if HAS_GRADIENT:
                gradient = (difference * scale).to(gradient_PD.dtype.element_ty)
                tl.store(gradient_PD + offsets, gradient, mask=exists[:, None] & is_feature)
    total = tl.sum(tl.sum(squares, axis=1), axis=0) / num_features
    tl.store(partial_sums_KR + block.to(tl.int64) * tl.num_programs(0) + program, total)


@triton.jit
def rescale_kernel(
    gradients_KN,
    sums_gradient_K,
    expected,
    num_elements,
    NUM_BLOCKS: tl.constexpr,
    TILE: tl.constexpr,
):
    """Multiplies a block's gradient by ``sums_gradient / expected``, unless that is 1."""
    block = tl.program_id(1)
    upstream = tl.load(sums_gradient_K + block)
    # Written so that NaN is not the expected value.
    is_expected = tl.abs(upstream - expected) <= tl.abs(expected) * SAME_WITHIN
    if not is_expected:
        gradient_N = select_block(gradients_KN, block, NUM_BLOCKS)
        ratio = upstream / expected
        first = tl.program_id(0).to(tl.int64) * TILE
        stride = tl.num_programs(0).to(tl.int64) * TILE
        for turn in range(0, tl.cdiv(num_elements, stride)):
            offsets = first + turn * stride + tl.arange(0, TILE)
            mask = offsets < num_elements
            gradient = tl.load(gradient_N + offsets, mask=mask, other=0.0).to(tl.float32)
            scaled = (gradient * ratio).to(gradient_N.dtype.element_ty)
            tl.store(gradient_N + offsets, scaled, mask=mask)


def tile_sizes(num_features: int) -> tuple[int, int]:
    """Returns (positions, features) of one tile; fixed, so that sums are the same on any GPU.

    Among the feature tiles, the one that covers the row with the fewest idle lanes: a row of 768
    is 3 x 256, not three quarters of 1024.
    """
    if num_features < FEATURE_TILES[-1]:
        features = triton.next_power_of_2(num_features)
    else:
        features = min(FEATURE_TILES, key=lambda tile: -(-num_features // tile) * tile)
    return TILE_ELEMENTS // features, features


def num_programs(num_positions: int, num_features: int) -> int:
    """Returns R, the number of programs of one block."""
    num_tiles = -(-num_positions // tile_sizes(num_features)[0])
    return min(num_tiles, MAX_PROGRAMS_PER_BLOCK)


def launch_forward(
    outputs: Sequence[Tensor],
    anchors: Sequence[Tensor],
    valid: Tensor | None,
    partial_sums: Tensor,
    gradients: Sequence[Tensor] = (),
    factor: float = 1.0,
) -> None:
    """Fills ``partial_sums`` and, if given, the gradients.

    Args:
        outputs: one contiguous ``[P, D]`` per block.
        anchors: the same.
        valid: bool ``[P]`` or ``None``.
        partial_sums: fp32 ``[K, R]``.
        gradients: contiguous ``[P, D]`` per block; none = sums alone.
        factor: what the gradient of each sum is multiplied by.
    """
    num_positions, num_features = outputs[0].shape
    tile_positions, tile_features = tile_sizes(num_features)
    forward_kernel[(partial_sums.shape[1], len(outputs))](
        tuple(outputs),
        tuple(anchors),
        outputs[0] if valid is None else valid.view(torch.uint8),
        tuple(gradients or outputs),
        partial_sums,
        2.0 * factor / num_features,
        num_positions,
        num_features,
        NUM_BLOCKS=len(outputs),
        HAS_VALID=valid is not None,
        HAS_GRADIENT=bool(gradients),
        TILE_P=tile_positions,
        TILE_D=tile_features,
        **launch_settings(KERNEL, num_features, outputs[0].dtype, outputs[0].device),
    )


def launch_rescale(gradients: Sequence[Tensor], sums_gradient: Tensor, expected: float) -> None:
    """Multiplies contiguous gradients by fp32 ``sums_gradient`` ``[K]`` over ``expected``."""
    gradient = gradients[0]
    num_elements = gradient.numel()
    num_tiles = -(-num_elements // TILE_ELEMENTS)
    rescale_kernel[(min(num_tiles, MAX_PROGRAMS_PER_BLOCK // 4), len(gradients))](
        tuple(gradients),
        sums_gradient,
        expected,
        num_elements,
        NUM_BLOCKS=len(gradients),
        TILE=TILE_ELEMENTS,
        **launch_settings(KERNEL, gradient.shape[-1], gradient.dtype, gradient.device),
    )
