"""The segment-aware depthwise convolution in Triton: three device functions.

Legend: B rows, S positions, H channels, K taps of the filter, m = K // 2, P programs of the
backward along the positions, T = K + 1 sums (taps, then the bias).

A program is one warp. A thread holds 16 neighbouring bytes of a position, and the program sweeps a
chunk of a row from left to right with the last K positions in registers: what it loads is the
chunk and its halo of m positions on either side, once. Whether two positions belong together is
one comparison of their segment ids, the same for all threads of the warp, so nothing is prepared
on the host and the grid depends on shapes alone.
"""

# Triton brings no types, and its functions take pointers and compile-time constants.
# Its tuples grow by addition alone, one element after the other.
# ruff: noqa: RUF005
# mypy: disable-error-code="untyped-decorator,no-untyped-def,assignment,unreachable"

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def chunk_place(index, length, chunk):
    """Returns where a chunk is: offset of its row's first position (int64), begin in the row."""
    chunks_per_row = tl.cdiv(length, chunk)
    row = (index // chunks_per_row).to(tl.int64)
    return row * length, (index % chunks_per_row) * chunk


@triton.jit
def load_position(row_H, position, length, num_channels, has_channel):
    """Returns the channels of one position as they are stored, zero outside the row."""
    inside = (position >= 0) & (position < length)
    pointers = row_H + tl.cast(position, tl.int64) * num_channels
    return tl.load(pointers, mask=tl.where(inside, has_channel, False), other=0.0)


@triton.jit
def load_id(row_ids, position, length, HAS_SEGMENTS: tl.constexpr):
    """Returns the segment id of one position, 0 outside the row; unused without segments."""
    if HAS_SEGMENTS:
        inside = (position >= 0) & (position < length)
        return tl.load(row_ids + position, mask=inside, other=0).to(tl.int32)
    return position


@triton.jit
def if_linked(values, segment_id, middle_id, HAS_SEGMENTS: tl.constexpr):
    """Returns ``values`` in fp32, or zeros where the middle does not see their position.

    A choice and not a product: what another segment holds never gets in, not even NaN.
    """
    if HAS_SEGMENTS:
        return tl.where((segment_id == middle_id) & (middle_id > 0), values, 0.0)
    return values


@triton.jit
def load_taps(weight_KH, channels, num_channels, has_channel, K: tl.constexpr):
    """Returns the filters of a tile of channels, a tuple of K rows in fp32."""
    taps = ()
    for tap in tl.static_range(K):
        row_H = tl.load(weight_KH + tap * num_channels + channels, mask=has_channel, other=0.0)
        taps = taps + (row_H.to(tl.float32),)
    return taps


@triton.jit
def load_window(
    row_H, row_ids, begin, length, num_channels, has_channel,
    K: tl.constexpr, HAS_SEGMENTS: tl.constexpr,
):  # fmt: skip
    """Returns the K - 1 positions from ``begin - m`` on in fp32, and their ids: two tuples."""
    window = ()
    ids = ()
    for index in tl.static_range(K - 1):
        position = begin + index - K // 2
        loaded = load_position(row_H, position, length, num_channels, has_channel)
        window = window + (loaded.to(tl.float32),)
        ids = ids + (load_id(row_ids, position, length, HAS_SEGMENTS),)
    return window, ids


@triton.jit
def store_position(row_H, values, position, length, num_channels, has_channel):
    """Stores the channels of one position in the tensor's type, unless it is past the row."""
    pointers = row_H + tl.cast(position, tl.int64) * num_channels
    mask = tl.where(position < length, has_channel, False)
    tl.store(pointers, values.to(row_H.dtype.element_ty), mask=mask)


@triton.jit
def sweep(
    hidden_BSH,
    weight_KH,
    bias_H,
    segment_ids_BS,
    output_BSH,
    start,
    begin,
    length,
    num_channels,
    chunk,
    K: tl.constexpr,
    HAS_SEGMENTS: tl.constexpr,
    TILE_H: tl.constexpr,
    STEP: tl.constexpr,
):
    """Stores the convolution of one chunk for this program's tile of channels.

    The chunk begins at position ``begin`` of the row whose first position has the offset ``start``.
    ``STEP`` positions are loaded before the first of them is used. Each completes the window around
    the position m before it.
    """
    channels = tl.program_id(1) * TILE_H + tl.arange(0, TILE_H)
    has_channel = channels < num_channels
    hidden_H = hidden_BSH + start * num_channels + channels
    output_H = output_BSH + start * num_channels + channels
    row_ids = segment_ids_BS + start
    taps = load_taps(weight_KH, channels, num_channels, has_channel, K)
    bias = tl.load(bias_H + channels, mask=has_channel, other=0.0).to(tl.float32)
    window, ids = load_window(
        hidden_H, row_ids, begin, length, num_channels, has_channel, K, HAS_SEGMENTS
    )
    for first in range(begin, begin + chunk, STEP):
        loaded = ()
        for step in tl.static_range(STEP):
            ahead = first + step + K // 2
            loaded = loaded + (load_position(hidden_H, ahead, length, num_channels, has_channel),)
            ids = ids + (load_id(row_ids, ahead, length, HAS_SEGMENTS),)
        for step in tl.static_range(STEP):
            window = window + (loaded[step].to(tl.float32),)
            total = bias
            for tap in tl.static_range(K):
                total += taps[tap] * if_linked(window[tap], ids[tap], ids[K // 2], HAS_SEGMENTS)
            store_position(output_H, total, first + step, length, num_channels, has_channel)
            window = window[1:]
            ids = ids[1:]


@triton.jit(do_not_specialize=["length", "chunk"])
def forward_kernel(
    hidden_BSH,
    weight_KH,
    bias_H,
    segment_ids_BS,
    output_BSH,
    length,
    num_channels,
    chunk,
    K: tl.constexpr,
    HAS_SEGMENTS: tl.constexpr,
    TILE_H: tl.constexpr,
    STEP: tl.constexpr,
):
    """Stores the convolution of one chunk; grid ``(chunks of all rows, tiles of channels)``."""
    start, begin = chunk_place(tl.program_id(0), length, chunk)
    sweep(
        hidden_BSH, weight_KH, bias_H, segment_ids_BS, output_BSH,
        start, begin, length, num_channels, chunk, K, HAS_SEGMENTS, TILE_H, STEP,
    )  # fmt: skip


@triton.jit
def add_position(window, hidden, ids, taps, sums, K: tl.constexpr, HAS_SEGMENTS: tl.constexpr):
    """Works out everything that one position's input takes part in.

    Args:
        window: K gradients of the output, the position's own in the middle.
        hidden: the position's input.
        ids: of the window.
        taps: K rows of the filter.
        sums: K gradients of the taps and that of the bias so far.
        K: number of taps.
        HAS_SEGMENTS: whether ``ids`` count.

    Returns:
        The input's gradient, and the new ``sums``.
    """
    middle_id = ids[K // 2]
    # A product with this would be NaN if padding holds NaN, even where the gradient is zero.
    seen_hidden = if_linked(hidden.to(tl.float32), middle_id, middle_id, HAS_SEGMENTS)
    grad_hidden = tl.zeros_like(seen_hidden)
    new_sums = ()
    for tap in tl.static_range(K):
        # The output at offset m - tap saw this input under this tap.
        seen_grad = if_linked(window[K - 1 - tap], ids[K - 1 - tap], middle_id, HAS_SEGMENTS)
        grad_hidden += taps[tap] * seen_grad
        new_sums = new_sums + (sums[tap] + seen_grad * seen_hidden,)
    return grad_hidden, new_sums + (sums[K] + window[K // 2],)


@triton.jit(
    do_not_specialize=["num_chunks", "chunks_per_program", "length", "chunk"],
)
def backward_kernel(
    grad_BSH,
    hidden_BSH,
    weight_KH,
    segment_ids_BS,
    grad_hidden_BSH,
    partial_PTH,
    num_chunks,
    chunks_per_program,
    length,
    num_channels,
    chunk,
    K: tl.constexpr,
    HAS_SEGMENTS: tl.constexpr,
    TILE_H: tl.constexpr,
    STEP: tl.constexpr,
):
    """Stores the input's gradient, and one partial sum per program of those of weight and bias.

    Grid ``(P, tiles of channels)``. The window is over the output's gradient; with the input in its
    middle it gives that input's gradient and its part of every tap's, so the input has no halo.
    """
    channels = tl.program_id(1) * TILE_H + tl.arange(0, TILE_H)
    has_channel = channels < num_channels
    taps = load_taps(weight_KH, channels, num_channels, has_channel, K)
    sums = ()
    for _tap in tl.static_range(K + 1):
        sums = sums + (tl.zeros((TILE_H,), tl.float32),)
    first_chunk = tl.program_id(0) * chunks_per_program
    for index in range(first_chunk, tl.minimum(first_chunk + chunks_per_program, num_chunks)):
        start, begin = chunk_place(index, length, chunk)
        grad_H = grad_BSH + start * num_channels + channels
        hidden_H = hidden_BSH + start * num_channels + channels
        grad_hidden_H = grad_hidden_BSH + start * num_channels + channels
        row_ids = segment_ids_BS + start
        window, ids = load_window(
            grad_H, row_ids, begin, length, num_channels, has_channel, K, HAS_SEGMENTS
        )
        for first in range(begin, begin + chunk, STEP):
            hiddens = ()
            grads = ()
            for step in tl.static_range(STEP):
                at = first + step
                ahead = at + K // 2
                hiddens = hiddens + (
                    load_position(hidden_H, at, length, num_channels, has_channel),
                )
                grads = grads + (load_position(grad_H, ahead, length, num_channels, has_channel),)
                ids = ids + (load_id(row_ids, ahead, length, HAS_SEGMENTS),)
            for step in tl.static_range(STEP):
                window = window + (grads[step].to(tl.float32),)
                total, sums = add_position(window, hiddens[step], ids, taps, sums, K, HAS_SEGMENTS)
                store_position(
                    grad_hidden_H, total, first + step, length, num_channels, has_channel
                )
                window = window[1:]
                ids = ids[1:]
    partial_H = partial_PTH + tl.program_id(0).to(tl.int64) * (K + 1) * num_channels + channels
    for tap in tl.static_range(K + 1):
        tl.store(partial_H + tap * num_channels, sums[tap], mask=has_channel)


@triton.jit(do_not_specialize=["num_programs"])
def reduction_kernel(
    partial_PC,
    grad_weight_KH,
    grad_bias_H,
    num_programs,
    num_weights,
    num_columns,
    TILE_P: tl.constexpr,
    TILE_C: tl.constexpr,
):
    """Adds up the partial sums in a fixed order; grid ``(tiles of columns,)``.

    A column is one channel of one tap, ``num_weights`` of them, or of the bias.
    """
    columns = tl.program_id(0) * TILE_C + tl.arange(0, TILE_C)
    has_column = columns < num_columns
    totals = tl.zeros((TILE_P, TILE_C), tl.float32)
    for first in range(0, num_programs, TILE_P):
        programs = first + tl.arange(0, TILE_P)
        totals += tl.load(
            partial_PC + programs.to(tl.int64)[:, None] * num_columns + columns[None, :],
            mask=(programs < num_programs)[:, None] & has_column[None, :],
            other=0.0,
        )
    sums = tl.sum(totals, axis=0)
    weight_type = grad_weight_KH.dtype.element_ty
    tl.store(grad_weight_KH + columns, sums.to(weight_type), mask=columns < num_weights)
    tl.store(
        grad_bias_H + columns - num_weights,
        sums.to(grad_bias_H.dtype.element_ty),
        mask=(columns >= num_weights) & has_column,
    )
