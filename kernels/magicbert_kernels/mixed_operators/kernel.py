"""Bias, GELU, residual and norm in Triton, with the weights of each row's operator.

Legend: R rows, S positions of a row, H features of the encoder, I features of an inner state,
G operators.

Each operator keeps its own weights; their pointers travel as tuple arguments, as in the alignment
loss. All positions of a program are of one row, so that which operator it takes is one number,
and one choice among G pointers.
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

TILE_ELEMENTS = 4096
MIN_CHUNK = 64
MAX_CHUNK = 1024
# Ids are a slice of a longer tensor: where it starts must not call for another compilation.
UNALIGNED = ("operator_ids_R",)


@triton.jit
def select_operator(pointers, operator, NUM_OPERATORS: tl.constexpr):
    """Returns ``pointers[operator]`` for a number known only at run time."""
    pointer = pointers[0]
    for index in tl.static_range(1, NUM_OPERATORS):
        if operator == index:
            pointer = pointers[index]
    return pointer


@triton.jit
def row_tile(length, TILE_S: tl.constexpr):
    """Returns this program's row (int64) and its positions in it ``[S]``."""
    tiles = tl.cdiv(length, TILE_S)
    row = tl.program_id(0) // tiles
    positions = (tl.program_id(0) % tiles) * TILE_S + tl.arange(0, TILE_S)
    return row.to(tl.int64), positions


@triton.jit
def gelu(inner):
    """Returns ``x Phi(x)``, the erf form."""
    return 0.5 * inner * (1.0 + tl.erf(inner * 0.7071067811865476))


@triton.jit(do_not_specialize_on_alignment=UNALIGNED)
def bias_gelu_kernel(
    inner_RSI,
    biases_I,
    operator_ids_R,
    output_RSI,
    length,
    num_features,
    NUM_OPERATORS: tl.constexpr,
    TILE_S: tl.constexpr,
    TILE_I: tl.constexpr,
):
    """Stores ``gelu(inner + bias)`` of a tile of positions and features of one row."""
    row, positions = row_tile(length, TILE_S)
    features = tl.program_id(1) * TILE_I + tl.arange(0, TILE_I)
    is_feature = features < num_features
    bias_I = select_operator(biases_I, tl.load(operator_ids_R + row), NUM_OPERATORS)
    bias = tl.load(bias_I + features, mask=is_feature, other=0.0).to(tl.float32)
    offsets = (row * length + positions)[:, None] * num_features + features[None, :]
    mask = (positions < length)[:, None] & is_feature[None, :]
    inner = tl.load(inner_RSI + offsets, mask=mask, other=0.0).to(tl.float32)
    output = gelu(inner + bias[None, :])
    tl.store(output_RSI + offsets, output.to(output_RSI.dtype.element_ty), mask=mask)


@triton.jit(do_not_specialize_on_alignment=UNALIGNED)
def gelu_norm_kernel(
    branch_RSH,
    residual_RSH,
    biases_H,
    norm_weights_H,
    norm_biases_H,
    operator_ids_R,
    output_RSH,
    length,
    num_features,
    epsilon,
    NUM_OPERATORS: tl.constexpr,
    NUM_CHUNKS: tl.constexpr,
    TILE_S: tl.constexpr,
    TILE_H: tl.constexpr,
):
    """Stores ``LN(residual + gelu(branch + bias))`` of a tile of positions of one row.

    All features stay in registers, as chunks: widths such as 768 = 3 x 256 leave no lane idle.
    """
    row, positions = row_tile(length, TILE_S)
    operator = tl.load(operator_ids_R + row)
    bias_H = select_operator(biases_H, operator, NUM_OPERATORS)
    norm_weight_H = select_operator(norm_weights_H, operator, NUM_OPERATORS)
    norm_bias_H = select_operator(norm_biases_H, operator, NUM_OPERATORS)
    starts = (row * length + positions)[:, None] * num_features
    is_position = (positions < length)[:, None]
    summed = ()
    total = tl.zeros((TILE_S,), tl.float32)
    for chunk in tl.static_range(NUM_CHUNKS):
        features = chunk * TILE_H + tl.arange(0, TILE_H)
        is_feature = features < num_features
        mask = is_position & is_feature[None, :]
        offsets = starts + features[None, :]
        bias = tl.load(bias_H + features, mask=is_feature, other=0.0).to(tl.float32)
        branch = tl.load(branch_RSH + offsets, mask=mask, other=0.0).to(tl.float32)
        residual = tl.load(residual_RSH + offsets, mask=mask, other=0.0).to(tl.float32)
        value = residual + gelu(branch + bias[None, :])
        total += tl.sum(value, axis=1)
        summed = summed + (value,)
    mean = (total / num_features)[:, None]
    squares = tl.zeros((TILE_S,), tl.float32)
    for chunk in tl.static_range(NUM_CHUNKS):
        is_feature = (chunk * TILE_H + tl.arange(0, TILE_H) < num_features)[None, :]
        difference = tl.where(is_feature, summed[chunk] - mean, 0.0)
        squares += tl.sum(difference * difference, axis=1)
    scale = tl.rsqrt(squares / num_features + epsilon)[:, None]
    for chunk in tl.static_range(NUM_CHUNKS):
        features = chunk * TILE_H + tl.arange(0, TILE_H)
        is_feature = features < num_features
        weight = tl.load(norm_weight_H + features, mask=is_feature, other=0.0).to(tl.float32)
        bias = tl.load(norm_bias_H + features, mask=is_feature, other=0.0).to(tl.float32)
        output = (summed[chunk] - mean) * scale * weight[None, :] + bias[None, :]
        tl.store(
            output_RSH + starts + features[None, :],
            output.to(output_RSH.dtype.element_ty),
            mask=is_position & is_feature[None, :],
        )


def chunk_width(num_features: int) -> int:
    """Returns the power of two whose multiple covers the features with the fewest idle lanes."""
    chunk = MAX_CHUNK
    best = chunk
    while chunk >= MIN_CHUNK:
        if triton.cdiv(num_features, chunk) * chunk < triton.cdiv(num_features, best) * best:
            best = chunk
        chunk //= 2
    return best


def tile_positions(tile_features: int) -> int:
    """Returns how many positions a program takes."""
    return max(TILE_ELEMENTS // int(triton.next_power_of_2(tile_features)), 1)


def launch_bias_gelu(
    inner_RSI: Tensor, biases_I: Sequence[Tensor], operator_ids_R: Tensor, output_RSI: Tensor
) -> None:
    """Fills the output, contiguous like the input and of its shape."""
    num_rows, length, num_features = inner_RSI.shape
    tile_features = chunk_width(num_features)
    tile_length = tile_positions(tile_features)
    settings = launch_settings("mixed_bias_gelu", num_features, inner_RSI.dtype, inner_RSI.device)
    grid = (num_rows * triton.cdiv(length, tile_length), triton.cdiv(num_features, tile_features))
    bias_gelu_kernel[grid](
        inner_RSI,
        tuple(biases_I),
        operator_ids_R,
        output_RSI,
        length,
        num_features,
        NUM_OPERATORS=len(biases_I),
        TILE_S=tile_length,
        TILE_I=tile_features,
        **settings,
    )


def launch_gelu_norm(
    branch_RSH: Tensor,
    residual_RSH: Tensor,
    vectors_H: Sequence[Sequence[Tensor]],
    operator_ids_R: Tensor,
    epsilon: float,
    output_RSH: Tensor,
) -> None:
    """Fills the output, contiguous like branch and residual and of their shape.

    Args:
        branch_RSH: ahead of bias and GELU.
        residual_RSH: added to it.
        vectors_H: biases, norm weights and norm biases, one of each per operator.
        operator_ids_R: operator of each row.
        epsilon: of the norm.
        output_RSH: of any floating type.
    """
    num_rows, length, num_features = branch_RSH.shape
    tile_features = chunk_width(num_features)
    num_chunks = triton.cdiv(num_features, tile_features)
    tile_length = tile_positions(num_chunks * tile_features)
    settings = launch_settings("mixed_gelu_norm", num_features, branch_RSH.dtype, branch_RSH.device)
    gelu_norm_kernel[(num_rows * triton.cdiv(length, tile_length),)](
        branch_RSH,
        residual_RSH,
        *(tuple(vectors) for vectors in vectors_H),
        operator_ids_R,
        output_RSH,
        length,
        num_features,
        epsilon,
        NUM_OPERATORS=len(vectors_H[0]),
        NUM_CHUNKS=num_chunks,
        TILE_S=tile_length,
        TILE_H=tile_features,
        **settings,
    )
