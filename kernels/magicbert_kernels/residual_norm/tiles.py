"""What both directions do with a tile of rows: reading it, its dropout, its GELU.

Legend: P rows (positions), H features.

Tensors that a variant does not have are ``None``, which Triton takes as a constant.
"""

# Triton brings no types, and its functions take pointers and compile-time constants.
# mypy: disable-error-code="untyped-decorator,no-untyped-def,assignment"

from __future__ import annotations

import triton
import triton.language as tl

from magicbert_kernels.philox.kernel import keep_bits_of_fours, keep_mask, spread_bits

ROOT_HALF = tl.constexpr(0.7071067811865476)
ROOT_HALF_PI = tl.constexpr(0.3989422804014327)
# Of both kernels: counts that change from call to call must not make kernels of their own.
NOT_SPECIALIZED = ["num_rows", "threshold", "stream"]


@triton.jit
def tile_rows(tile, TILE_R: tl.constexpr):
    """Returns the row numbers of a tile, as int64."""
    return tl.cast(tile, tl.int64) * TILE_R + tl.arange(0, TILE_R)


@triton.jit
def load_features(values_H, columns, other, WIDTH: tl.constexpr):
    """Returns fp32 values of the features of a tile, ``other`` beyond the row."""
    return tl.load(values_H + columns, mask=columns < WIDTH, other=other).to(tl.float32)


@triton.jit
def keep_tile(
    seed, stream, threshold, rows, FIRST: tl.constexpr, WIDTH: tl.constexpr, TILE_C: tl.constexpr
):
    """Returns which elements of a tile dropout keeps, to be read by `is_kept`.

    Rows that begin at multiples of four elements get four masks from one Philox call, packed.
    """
    if WIDTH % 4 == 0:
        groups = rows[:, None] * (WIDTH // 4) + (FIRST // 4 + tl.arange(0, TILE_C // 4))[None, :]
        return keep_bits_of_fours(seed, stream, groups, threshold)
    else:
        columns = FIRST + tl.arange(0, TILE_C)
        return keep_mask(seed, stream, rows[:, None] * WIDTH + columns[None, :], threshold)


@triton.jit
def is_kept(keep, WIDTH: tl.constexpr):
    """Returns booleans from what `keep_tile` returned."""
    if WIDTH % 4 == 0:
        return spread_bits(keep)
    else:
        return keep


@triton.jit
def gelu(value):
    """Returns ``value * Phi(value)`` with the exact Phi."""
    return 0.5 * value * (1.0 + tl.erf(value * ROOT_HALF))


@triton.jit
def gelu_slope(value):
    """Returns the derivative of `gelu`."""
    density = ROOT_HALF_PI * tl.exp(-0.5 * value * value)
    return 0.5 * (1.0 + tl.erf(value * ROOT_HALF)) + value * density


@triton.jit
def load_branch(branch_PH, branch_bias_H, offsets, columns, mask, WIDTH: tl.constexpr):
    """Returns fp32 branch values with their bias added."""
    branch = tl.load(branch_PH + offsets, mask=mask, other=0.0).to(tl.float32)
    if branch_bias_H is not None:
        branch += load_features(branch_bias_H, columns, 0.0, WIDTH)[None, :]
    return branch
