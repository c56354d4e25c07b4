"""Dropout, residual and LayerNorm in Triton, the forward: one launch.

Legend: P rows (positions), H features.

A program holds whole rows: a row is a few tiles of columns, all in registers at once, so that each
tensor is read once.
"""

# Triton brings no types, and its functions take pointers and compile-time constants.
# mypy: disable-error-code="untyped-decorator,no-untyped-def,assignment"
# Its language adds tuples but does not unpack them in place.
# ruff: noqa: RUF005

from __future__ import annotations

import triton
import triton.language as tl

from magicbert_kernels.residual_norm.tiles import (
    NOT_SPECIALIZED,
    gelu,
    is_kept,
    keep_tile,
    load_branch,
    load_features,
    tile_rows,
)


@triton.jit(do_not_specialize=NOT_SPECIALIZED)
def forward_kernel(
    branch_PH,
    residual_PH,
    weight_H,
    bias_H,
    branch_bias_H,
    seed_pointer,
    normed_PH,
    summed_PH,
    statistics_2P,
    num_rows,
    epsilon,
    keep_scale,
    threshold,
    stream,
    WIDTH: tl.constexpr,
    TILE_R: tl.constexpr,
    TILE_C: tl.constexpr,
    NUM_TILES: tl.constexpr,
    IS_GELU: tl.constexpr,
):
    """Stores LN(residual + dropout(act(branch))), mean and 1/deviation, and the sum if wanted."""
    rows = tile_rows(tl.program_id(0), TILE_R)
    exists = rows < num_rows
    sums = ()
    total = tl.zeros((TILE_R, TILE_C), dtype=tl.float32)
    for tile in tl.static_range(NUM_TILES):
        columns = tile * TILE_C + tl.arange(0, TILE_C)
        offsets = rows[:, None] * WIDTH + columns[None, :]
        mask = exists[:, None] & (columns < WIDTH)[None, :]
        residual = tl.load(residual_PH + offsets, mask=mask, other=0.0).to(tl.float32)
        branch = load_branch(branch_PH, branch_bias_H, offsets, columns, mask, WIDTH)
        if IS_GELU:
            branch = gelu(branch)
        if seed_pointer is not None:
            seed = tl.load(seed_pointer)
            keep = keep_tile(seed, stream, threshold, rows, tile * TILE_C, WIDTH, TILE_C)
            branch = tl.where(is_kept(keep, WIDTH), branch * keep_scale, 0.0)
        summed = tl.where(mask, residual + branch, 0.0)
        if summed_PH is not None:
            tl.store(summed_PH + offsets, summed.to(summed_PH.dtype.element_ty), mask=mask)
        sums = sums + (summed,)
        total += summed
    mean = tl.sum(total, axis=1) / WIDTH
    squares = tl.zeros((TILE_R, TILE_C), dtype=tl.float32)
    for tile in tl.static_range(NUM_TILES):
        columns = tile * TILE_C + tl.arange(0, TILE_C)
        centred = tl.where((columns < WIDTH)[None, :], sums[tile] - mean[:, None], 0.0)
        squares += centred * centred
    # Not `rsqrt`, which is an approximation on a GPU: every element of the row carries its error.
    inverse = 1.0 / tl.sqrt_rn(tl.sum(squares, axis=1) / WIDTH + epsilon)
    tl.store(statistics_2P + rows, mean, mask=exists)
    tl.store(statistics_2P + num_rows + rows, inverse, mask=exists)
    for tile in tl.static_range(NUM_TILES):
        columns = tile * TILE_C + tl.arange(0, TILE_C)
        offsets = rows[:, None] * WIDTH + columns[None, :]
        mask = exists[:, None] & (columns < WIDTH)[None, :]
        weight = load_features(weight_H, columns, 1.0, WIDTH)
        bias = load_features(bias_H, columns, 0.0, WIDTH)
        normal = (sums[tile] - mean[:, None]) * inverse[:, None]
        normed = normal * weight[None, :] + bias[None, :]
        tl.store(normed_PH + offsets, normed.to(normed_PH.dtype.element_ty), mask=mask)
