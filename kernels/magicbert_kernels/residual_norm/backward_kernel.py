"""Dropout, residual and LayerNorm in Triton, the backward: two launches.

Legend: P rows (positions), H features, G programs, N parameters with a gradient.

The first launch walks over the rows in steps of the grid and adds up the parameters' gradients in
registers; each program stores one partial sum, and the second adds those in a fixed order. No
atomics, the same bits every time.
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
    gelu_slope,
    is_kept,
    keep_tile,
    load_branch,
    load_features,
    tile_rows,
)

# Below this weight a normalised value is not taken from the output, whatever the bias.
SMALLEST_WEIGHT = tl.constexpr(2.0**-12)
# Neighbouring features that are read, or not read, together: one access of 16-bit elements.
GROUP = tl.constexpr(8)


@triton.jit
def is_lost(weight, bias):
    """Returns the features whose normalised value the output does not give back.

    ``(y - b) / w`` carries the rounding error of y, about ``|w x + b|``, divided by ``|w|``: as if
    x itself were rounded, and ``|b / w|`` more. Where that is above 1, or w is next to nothing, the
    value is computed from the inputs instead.
    """
    return tl.abs(weight) < tl.maximum(tl.abs(bias), SMALLEST_WEIGHT)


@triton.jit
def lost_groups(weight_H, bias_H, FIRST: tl.constexpr, WIDTH: tl.constexpr, TILE_C: tl.constexpr):
    """Returns the features of a tile in whose group of neighbours one `is_lost`."""
    first_of_group = FIRST + tl.arange(0, TILE_C) // GROUP * GROUP
    found = first_of_group < 0
    for index in tl.static_range(GROUP):
        weight = load_features(weight_H, first_of_group + index, 1.0, WIDTH)
        bias = load_features(bias_H, first_of_group + index, 0.0, WIDTH)
        found = found | is_lost(weight, bias)
    return tl.max_constancy(found, [GROUP])


@triton.jit
def normal_from_inputs(
    branch_PH, residual_PH, branch_bias_H, offsets, columns, mask, factor, mean, inverse,
    WIDTH: tl.constexpr, IS_GELU: tl.constexpr,
):  # fmt: skip
    """Returns normalised values, computed as the forward did, and the branch before dropout.

    ``factor`` is what dropout multiplies with.
    """
    residual = tl.load(residual_PH + offsets, mask=mask, other=0.0).to(tl.float32)
    branch = load_branch(branch_PH, branch_bias_H, offsets, columns, mask, WIDTH)
    value = gelu(branch) if IS_GELU else branch
    return (residual + value * factor - mean[:, None]) * inverse[:, None], branch


@triton.jit
def normal_from_result(result_PH, weight_H, bias_H, offsets, columns, mask, mean, inverse,
                       WIDTH: tl.constexpr, IS_SUM: tl.constexpr):  # fmt: skip
    """Returns normalised values from what the forward returned: the sum, or the output."""
    result = tl.load(result_PH + offsets, mask=mask, other=0.0).to(tl.float32)
    if IS_SUM:
        return (result - mean[:, None]) * inverse[:, None]
    else:
        weight = load_features(weight_H, columns, 1.0, WIDTH)[None, :]
        bias = load_features(bias_H, columns, 0.0, WIDTH)[None, :]
        return (result - bias) / tl.where(tl.abs(weight) < SMALLEST_WEIGHT, 1.0, weight)


@triton.jit
def same_tiles(value, NUM_TILES: tl.constexpr):
    """Returns a tuple with ``value`` for every tile of a row."""
    values = ()
    for _ in tl.static_range(NUM_TILES):
        values = values + (value,)
    return values


@triton.jit
def tiles_with_lost(weight_H, bias_H, WIDTH: tl.constexpr, TILE_C: tl.constexpr,
                    NUM_TILES: tl.constexpr):  # fmt: skip
    """Returns per tile of a row, as a number, whether any of its features `is_lost`."""
    values = ()
    for tile in tl.static_range(NUM_TILES):
        columns = tile * TILE_C + tl.arange(0, TILE_C)
        weight = load_features(weight_H, columns, 1.0, WIDTH)
        bias = load_features(bias_H, columns, 0.0, WIDTH)
        values = values + (tl.max(is_lost(weight, bias).to(tl.int32), axis=0),)
    return values


@triton.jit
def tile_state(
    result_PH, branch_PH, residual_PH, weight_H, bias_H, branch_bias_H, seed_pointer, has_lost,
    rows, mask, mean, inverse, keep_scale, threshold, stream,
    FIRST: tl.constexpr, WIDTH: tl.constexpr, TILE_C: tl.constexpr, IS_GELU: tl.constexpr,
    IS_SUM: tl.constexpr,
):  # fmt: skip
    """Returns normalised values of a tile, and what its branch lets through to its gradient.

    The latter is a factor with GELU, else what `keep_tile` returns with dropout, else nothing.
    """
    columns = FIRST + tl.arange(0, TILE_C)
    offsets = rows[:, None] * WIDTH + columns[None, :]
    factor = 1.0
    if seed_pointer is not None:
        seed = tl.load(seed_pointer)
        passing = keep_tile(seed, stream, threshold, rows, FIRST, WIDTH, TILE_C)
        factor = tl.where(is_kept(passing, WIDTH), keep_scale, 0.0)
    if result_PH is None:
        normal, branch = normal_from_inputs(
            branch_PH, residual_PH, branch_bias_H, offsets, columns, mask, factor, mean, inverse,
            WIDTH, IS_GELU,
        )  # fmt: skip
    else:
        normal = normal_from_result(
            result_PH, weight_H, bias_H, offsets, columns, mask, mean, inverse, WIDTH, IS_SUM
        )
        if IS_SUM:
            if IS_GELU:
                branch = load_branch(branch_PH, branch_bias_H, offsets, columns, mask, WIDTH)
        elif has_lost > 0:
            lost = lost_groups(weight_H, bias_H, FIRST, WIDTH, TILE_C)[None, :]
            computed, _ = normal_from_inputs(
                branch_PH, residual_PH, branch_bias_H, offsets, columns, mask & lost, factor, mean,
                inverse, WIDTH, IS_GELU,
            )  # fmt: skip
            normal = tl.where(lost, computed, normal)
    normal = tl.where(mask, normal, 0.0)
    if IS_GELU:
        passing = gelu_slope(branch) * factor
    elif seed_pointer is None:
        passing = normal
    return normal, passing


@triton.jit
def store_gradients(
    normed_gradient_PH, summed_gradient_PH, branch_gradient_PH, residual_gradient_PH, weight_H,
    seed_pointer, rows, mask, normal, passing, gradient_mean, product_mean, inverse, keep_scale,
    FIRST: tl.constexpr, WIDTH: tl.constexpr, TILE_C: tl.constexpr, IS_GELU: tl.constexpr,
):  # fmt: skip
    """Stores a tile of both gradients and returns the branch's, 0 where there is no element."""
    columns = FIRST + tl.arange(0, TILE_C)
    offsets = rows[:, None] * WIDTH + columns[None, :]
    # A second time, from the first-level cache: registers are scarcer than its bandwidth.
    gradient = tl.load(
        normed_gradient_PH + offsets, mask=mask, other=0.0, eviction_policy="evict_first"
    ).to(tl.float32)
    gradient *= load_features(weight_H, columns, 0.0, WIDTH)[None, :]
    along = gradient_mean[:, None] + normal * product_mean[:, None]
    gradient = (gradient - along) * inverse[:, None]
    if summed_gradient_PH is not None:
        upstream = tl.load(summed_gradient_PH + offsets, mask=mask, other=0.0)
        gradient += upstream.to(tl.float32)
    stored_type = residual_gradient_PH.dtype.element_ty
    tl.store(residual_gradient_PH + offsets, gradient.to(stored_type), mask=mask)
    if IS_GELU:
        gradient *= passing
    elif seed_pointer is not None:
        gradient = tl.where(is_kept(passing, WIDTH), gradient * keep_scale, 0.0)
    if branch_gradient_PH is not None:
        stored_type = branch_gradient_PH.dtype.element_ty
        tl.store(branch_gradient_PH + offsets, gradient.to(stored_type), mask=mask)
    return tl.where(mask, gradient, 0.0)


@triton.jit
def store_partial(sums, partial_H, WIDTH: tl.constexpr, TILE_C: tl.constexpr,
                  NUM_TILES: tl.constexpr):  # fmt: skip
    """Stores one program's sum over its rows of a parameter's gradient."""
    for tile in tl.static_range(NUM_TILES):
        columns = tile * TILE_C + tl.arange(0, TILE_C)
        tl.store(partial_H + columns, tl.sum(sums[tile], axis=0), mask=columns < WIDTH)


@triton.jit(do_not_specialize=NOT_SPECIALIZED)
def backward_kernel(
    normed_gradient_PH, summed_gradient_PH, result_PH, branch_PH, residual_PH, weight_H, bias_H,
    branch_bias_H, seed_pointer, statistics_2P, branch_gradient_PH, residual_gradient_PH,
    partials_GNH, num_rows, keep_scale, threshold, stream,
    WIDTH: tl.constexpr, TILE_R: tl.constexpr, TILE_C: tl.constexpr, NUM_TILES: tl.constexpr,
    IS_GELU: tl.constexpr, IS_SUM: tl.constexpr,
):  # fmt: skip
    """Stores the gradients of branch and residual, and partial sums of the parameters'.

    ``result_PH`` is what the forward returned and from which the normalised values come: its sum
    (``IS_SUM``) or its output. Without it they are computed from the inputs.
    """
    zeros = tl.zeros((TILE_R, TILE_C), dtype=tl.float32)
    weight_sums = same_tiles(zeros, NUM_TILES)
    bias_sums = same_tiles(zeros, NUM_TILES)
    branch_bias_sums = same_tiles(zeros, NUM_TILES)
    has_lost = same_tiles(0, NUM_TILES)
    if result_PH is not None and not IS_SUM:
        has_lost = tiles_with_lost(weight_H, bias_H, WIDTH, TILE_C, NUM_TILES)
    for step in range(tl.program_id(0), tl.cdiv(num_rows, TILE_R), tl.num_programs(0)):
        rows = tile_rows(step, TILE_R)
        exists = rows < num_rows
        mean = tl.load(statistics_2P + rows, mask=exists, other=0.0)
        inverse = tl.load(statistics_2P + num_rows + rows, mask=exists, other=0.0)
        normals = ()
        passings = ()
        new_weight_sums = ()
        new_bias_sums = ()
        gradient_total = zeros
        product_total = zeros
        for tile in tl.static_range(NUM_TILES):
            columns = tile * TILE_C + tl.arange(0, TILE_C)
            mask = exists[:, None] & (columns < WIDTH)[None, :]
            normal, passing = tile_state(
                result_PH, branch_PH, residual_PH, weight_H, bias_H, branch_bias_H, seed_pointer,
                has_lost[tile], rows, mask, mean, inverse, keep_scale, threshold, stream,
                tile * TILE_C, WIDTH, TILE_C, IS_GELU, IS_SUM,
            )  # fmt: skip
            offsets = rows[:, None] * WIDTH + columns[None, :]
            gradient = tl.load(normed_gradient_PH + offsets, mask=mask, other=0.0).to(tl.float32)
            scaled = gradient * load_features(weight_H, columns, 0.0, WIDTH)[None, :]
            gradient_total += scaled
            product_total += scaled * normal
            new_weight_sums = new_weight_sums + (weight_sums[tile] + gradient * normal,)
            new_bias_sums = new_bias_sums + (bias_sums[tile] + gradient,)
            normals = normals + (normal,)
            passings = passings + (passing,)
        weight_sums = new_weight_sums
        bias_sums = new_bias_sums
        gradient_mean = tl.sum(gradient_total, axis=1) / WIDTH
        product_mean = tl.sum(product_total, axis=1) / WIDTH
        new_branch_bias_sums = ()
        for tile in tl.static_range(NUM_TILES):
            columns = tile * TILE_C + tl.arange(0, TILE_C)
            gradient = store_gradients(
                normed_gradient_PH, summed_gradient_PH, branch_gradient_PH, residual_gradient_PH,
                weight_H, seed_pointer, rows, exists[:, None] & (columns < WIDTH)[None, :],
                normals[tile], passings[tile], gradient_mean, product_mean, inverse, keep_scale,
                tile * TILE_C, WIDTH, TILE_C, IS_GELU,
            )  # fmt: skip
            new_branch_bias_sums = new_branch_bias_sums + (branch_bias_sums[tile] + gradient,)
        if branch_bias_H is not None:
            branch_bias_sums = new_branch_bias_sums
    num_parameters: tl.constexpr = 2 if branch_bias_H is None else 3
    partial_NH = partials_GNH + tl.program_id(0).to(tl.int64) * (num_parameters * WIDTH)
    store_partial(weight_sums, partial_NH, WIDTH, TILE_C, NUM_TILES)
    store_partial(bias_sums, partial_NH + WIDTH, WIDTH, TILE_C, NUM_TILES)
    if branch_bias_H is not None:
        store_partial(branch_bias_sums, partial_NH + 2 * WIDTH, WIDTH, TILE_C, NUM_TILES)


@triton.jit
def reduction_kernel(
    partials_GC, sums_C, num_partials, WIDTH: tl.constexpr, TILE_G: tl.constexpr,
    TILE_C: tl.constexpr,
):  # fmt: skip
    """Adds up the partial sums of all programs, in an order that is always the same."""
    columns = tl.program_id(0) * TILE_C + tl.arange(0, TILE_C)
    total = tl.zeros((TILE_G, TILE_C), dtype=tl.float32)
    for start in range(0, num_partials, TILE_G):
        partials = start + tl.arange(0, TILE_G)
        mask = (partials < num_partials)[:, None] & (columns < WIDTH)[None, :]
        offsets = partials.to(tl.int64)[:, None] * WIDTH + columns[None, :]
        total += tl.load(partials_GC + offsets, mask=mask, other=0.0)
    sums = tl.sum(total, axis=0)
    tl.store(sums_C + columns, sums.to(sums_C.dtype.element_ty), mask=columns < WIDTH)
