"""Bias, GELU and dropout in Triton.

Legend: M rows (all leading axes), F features, R programs of one feature tile.

The forward works on one tile per program. A program of the backward owns a tile of features and
every R-th tile of rows, so that the bias's gradient grows in registers; the R partial sums are
added afterwards: no atomics, the same bits every time.
"""

# Triton brings no types, and its functions take pointers and compile-time constants.
# mypy: disable-error-code="untyped-decorator,no-untyped-def"

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from magicbert_kernels.launch_table import launch_settings
from magicbert_kernels.philox import threshold_bits
from magicbert_kernels.philox.kernel import keep_mask, keep_mask_of_fours

TILE_ELEMENTS = 2048
FEATURE_TILES = (512, 256, 128, 64, 32)
MAX_ROW_PROGRAMS = 256
SQRT_HALF: tl.constexpr = tl.constexpr(0.7071067811865476)
INVERSE_SQRT_TWO_PI: tl.constexpr = tl.constexpr(0.3989422804014327)


@triton.jit
def dropout_factor(
    seed_pointer, stream, threshold, scale, rows, first_feature, num_features,
    BY_FOURS: tl.constexpr, TILE_F: tl.constexpr,
):  # fmt: skip
    """Returns ``scale`` where an element is kept and 0 where it is dropped.

    Args:
        seed_pointer: one int64.
        stream: which use of the seed.
        threshold: from `threshold_bits`.
        scale: 1 / (1 - p).
        rows: int64 ``[TILE_M]``.
        first_feature: of the tile; a multiple of 4.
        num_features: of the whole row.
        BY_FOURS: ``num_features`` is a multiple of 4, as rows of models are.
        TILE_F: features of the tile.
    """
    seed = tl.load(seed_pointer)
    if BY_FOURS:
        groups = first_feature // 4 + tl.arange(0, TILE_F // 4)
        numbers = rows[:, None] * (num_features // 4) + groups[None, :]
        kept = keep_mask_of_fours(seed, stream, numbers, threshold)
    else:
        features = first_feature + tl.arange(0, TILE_F)
        offsets = rows[:, None] * num_features + features[None, :]
        kept = keep_mask(seed, stream, offsets, threshold)
    return tl.where(kept, scale, 0.0)


@triton.jit(do_not_specialize=["stream", "threshold"])
def forward_kernel(
    inner_MF, bias_F, output_MF, seed_pointer, stream, threshold, scale, num_rows, num_features,
    HAS_DROPOUT: tl.constexpr, BY_FOURS: tl.constexpr, TILE_M: tl.constexpr, TILE_F: tl.constexpr,
):  # fmt: skip
    """Stores ``Dropout(GELU(inner + bias))`` of one tile."""
    rows = tl.program_id(0).to(tl.int64) * TILE_M + tl.arange(0, TILE_M)
    first_feature = tl.program_id(1) * TILE_F
    features = first_feature + tl.arange(0, TILE_F)
    is_feature = features < num_features
    mask = (rows < num_rows)[:, None] & is_feature[None, :]
    offsets = rows[:, None] * num_features + features[None, :]
    bias = tl.load(bias_F + features, mask=is_feature, other=0.0).to(tl.float32)
    value = tl.load(inner_MF + offsets, mask=mask, other=0.0).to(tl.float32) + bias[None, :]
    output = value * (0.5 + 0.5 * tl.erf(value * SQRT_HALF))
    if HAS_DROPOUT:
        output *= dropout_factor(
            seed_pointer, stream, threshold, scale, rows, first_feature, num_features,
            BY_FOURS, TILE_F,
        )  # fmt: skip
    tl.store(output_MF + offsets, output.to(output_MF.dtype.element_ty), mask=mask)


@triton.jit(do_not_specialize=["stream", "threshold"])
def backward_kernel(
    gradient_MF, inner_MF, bias_F, inner_gradient_MF, partial_sums_RF,
    seed_pointer, stream, threshold, scale, num_rows, num_features,
    HAS_DROPOUT: tl.constexpr, BY_FOURS: tl.constexpr, TILE_M: tl.constexpr, TILE_F: tl.constexpr,
):  # fmt: skip
    """Stores the gradient of ``inner``, and its sum over one program's rows."""
    first_feature = tl.program_id(1) * TILE_F
    features = first_feature + tl.arange(0, TILE_F)
    is_feature = features < num_features
    bias = tl.load(bias_F + features, mask=is_feature, other=0.0).to(tl.float32)
    first = tl.program_id(0).to(tl.int64) * TILE_M
    stride = tl.num_programs(0).to(tl.int64) * TILE_M
    sums = tl.zeros((TILE_M, TILE_F), dtype=tl.float32)
    for turn in range(0, tl.cdiv(num_rows, stride)):
        rows = first + turn * stride + tl.arange(0, TILE_M)
        mask = (rows < num_rows)[:, None] & is_feature[None, :]
        offsets = rows[:, None] * num_features + features[None, :]
        value = tl.load(inner_MF + offsets, mask=mask, other=0.0).to(tl.float32) + bias[None, :]
        gradient = tl.load(gradient_MF + offsets, mask=mask, other=0.0).to(tl.float32)
        share = 0.5 + 0.5 * tl.erf(value * SQRT_HALF)
        density = tl.exp(-0.5 * value * value) * INVERSE_SQRT_TWO_PI
        gradient *= share + value * density
        if HAS_DROPOUT:
            gradient *= dropout_factor(
                seed_pointer, stream, threshold, scale, rows, first_feature, num_features,
                BY_FOURS, TILE_F,
            )  # fmt: skip
        sums += gradient
        stored = gradient.to(inner_gradient_MF.dtype.element_ty)
        tl.store(inner_gradient_MF + offsets, stored, mask=mask)
    row = tl.program_id(0).to(tl.int64) * num_features
    tl.store(partial_sums_RF + row + features, tl.sum(sums, axis=0), mask=is_feature)


def tile_sizes(num_features: int) -> tuple[int, int]:
    """Returns (rows, features) of one tile: the features that leave the fewest lanes idle."""
    if num_features < FEATURE_TILES[-1]:
        features = max(triton.next_power_of_2(num_features), 4)
    else:
        features = min(FEATURE_TILES, key=lambda tile: -(-num_features // tile) * tile)
    return TILE_ELEMENTS // features, features


def num_row_programs(num_rows: int, num_features: int) -> int:
    """Returns R; a function of the shape alone, so that sums are the same on any GPU."""
    return min(-(-num_rows // tile_sizes(num_features)[0]), MAX_ROW_PROGRAMS)


def launch_forward(
    inner: Tensor, bias: Tensor, output: Tensor, seed: Tensor | None, stream: int, dropout: float
) -> None:
    """Fills contiguous ``output`` from contiguous ``inner``, both ``[M, F]``, and bias ``[F]``."""
    num_rows, num_features = inner.shape
    tile_rows, tile_features = tile_sizes(num_features)
    grid = (-(-num_rows // tile_rows), -(-num_features // tile_features))
    forward_kernel[grid](
        inner,
        bias,
        output,
        bias if seed is None else seed,
        stream,
        threshold_bits(dropout),
        1.0 / (1.0 - dropout),
        num_rows,
        num_features,
        HAS_DROPOUT=seed is not None,
        BY_FOURS=num_features % 4 == 0,
        TILE_M=tile_rows,
        TILE_F=tile_features,
        **launch_settings("bias_gelu_forward", num_features, inner.dtype, inner.device),
    )


def launch_backward(
    gradient: Tensor,
    inner: Tensor,
    bias: Tensor,
    inner_gradient: Tensor,
    partial_sums: Tensor,
    seed: Tensor | None,
    stream: int,
    dropout: float,
) -> None:
    """Fills ``inner_gradient`` ``[M, F]`` and fp32 ``partial_sums`` ``[R, F]``; all contiguous."""
    num_rows, num_features = inner.shape
    tile_rows, tile_features = tile_sizes(num_features)
    backward_kernel[(partial_sums.shape[0], -(-num_features // tile_features))](
        gradient,
        inner,
        bias,
        inner_gradient,
        partial_sums,
        bias if seed is None else seed,
        stream,
        threshold_bits(dropout),
        1.0 / (1.0 - dropout),
        num_rows,
        num_features,
        HAS_DROPOUT=seed is not None,
        BY_FOURS=num_features % 4 == 0,
        TILE_M=tile_rows,
        TILE_F=tile_features,
        **launch_settings("bias_gelu_backward", num_features, inner.dtype, inner.device),
    )


def new_partial_sums(inner: Tensor) -> Tensor:
    """Returns the buffer that the backward fills for ``inner`` ``[M, F]``."""
    sizes = (num_row_programs(*inner.shape), inner.shape[1])
    return torch.empty(sizes, dtype=torch.float32, device=inner.device)
