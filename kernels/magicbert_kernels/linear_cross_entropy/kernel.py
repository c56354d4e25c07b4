"""Losses of rows of logits, and their gradient in place, in Triton: one program per row.

Legend: M rows, V vocabulary, P padded vocabulary (the rows' stride).

A row is read twice: for its largest value and the sum of exponentials, kept online, and, while it
is still in the cache, for the gradient that replaces it. Each program owns its row: no atomics.
"""

# Triton brings no types, and its functions take pointers and compile-time constants.
# mypy: disable-error-code="untyped-decorator,no-untyped-def"

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from magicbert_kernels.launch_table import launch_settings

TILE = 4096


@triton.jit
def rows_kernel(
    logits_MP,
    labels_M,
    losses_M,
    hits_M,
    vocab_size,
    padded_size,
    WANTS_GRADIENT: tl.constexpr,
    TILE_V: tl.constexpr,
):
    """Stores loss and hit of one row, and ``softmax - one hot`` over its logits."""
    row = tl.program_id(0).to(tl.int64)
    logits_P = logits_MP + row * padded_size
    label = tl.load(labels_M + row)
    # Not minus infinity: the difference of two of them would be NaN.
    largest = tl.full((), -3.0e38, dtype=tl.float32)
    total = tl.full((), 0.0, dtype=tl.float32)
    own = tl.full((), 0.0, dtype=tl.float32)
    index = tl.full((), 0, dtype=tl.int32)
    for start in range(0, padded_size, TILE_V):
        columns = start + tl.arange(0, TILE_V)
        # The mask of the load is in whole vectors; what stands behind the vocabulary is dropped.
        values = tl.load(logits_P + columns, mask=columns < padded_size, other=0.0).to(tl.float32)
        values = tl.where(columns < vocab_size, values, -float("inf"))
        highest = tl.max(values, axis=0)
        first = tl.min(tl.where(values == highest, columns, vocab_size), axis=0)
        index = tl.where(highest > largest, first, index)
        reached = tl.maximum(highest, largest)
        total = total * tl.exp(largest - reached) + tl.sum(tl.exp(values - reached), axis=0)
        own += tl.sum(tl.where(columns == label, values, 0.0), axis=0)
        largest = reached
    tl.store(losses_M + row, tl.log(total) + (largest - own))
    tl.store(hits_M + row, (index == label).to(tl.int32))
    if WANTS_GRADIENT:
        scale = 1.0 / total
        for start in range(0, padded_size, TILE_V):
            columns = start + tl.arange(0, TILE_V)
            inside = columns < padded_size
            values = tl.load(logits_P + columns, mask=inside, other=0.0).to(tl.float32)
            # Nobody reads what stands behind the vocabulary, but its exponential may overflow.
            values = tl.where(columns < vocab_size, values, -float("inf"))
            shares = tl.exp(values - largest) * scale
            gradient = tl.where(columns == label, shares - 1.0, shares)
            tl.store(logits_P + columns, gradient.to(logits_P.dtype.element_ty), mask=inside)


def launch_rows(
    logits_MP: Tensor,
    vocab_size: int,
    labels_M: Tensor,
    losses_M: Tensor,
    hits_M: Tensor,
    wants_gradient: bool,
) -> None:
    """Does what `rows.differentiate_rows` does, for fp32, bf16 and fp16."""
    num_rows, padded_size = logits_MP.shape
    settings = launch_settings(
        "linear_cross_entropy_rows", vocab_size, logits_MP.dtype, logits_MP.device
    )
    rows_kernel[(num_rows,)](
        logits_MP,
        labels_M,
        losses_M,
        hits_M,
        vocab_size,
        padded_size,
        WANTS_GRADIENT=wants_gradient,
        TILE_V=min(TILE, triton.next_power_of_2(padded_size)),
        **settings,
    )
