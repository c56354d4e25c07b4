"""Launches of the residual norm: fixed settings, contiguous ``[P, H]`` tensors, given outputs."""

# Triton brings no types.
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from magicbert_kernels.launch_table import launch_settings
from magicbert_kernels.philox import threshold_bits
from magicbert_kernels.residual_norm.backward_kernel import backward_kernel, reduction_kernel
from magicbert_kernels.residual_norm.kernel import forward_kernel
from magicbert_kernels.residual_norm.tiling import Tiling, choose_tiling

# What a lane may hold of a row, by bytes of an element: above it, registers spill.
MOST_PER_LANE_FORWARD = {2: 32, 4: 32}
MOST_PER_LANE_BACKWARD = {2: 24, 4: 16}
REDUCTION_TILE_PARTIALS = 32
REDUCTION_TILE_COLUMNS = 32
REDUCTION_WARPS = 4


@dataclass(frozen=True, slots=True)
class Dropout:
    """Dropout of one call: its share, the seed (``None`` without dropout) and the stream."""

    p: float
    seed: Tensor | None
    stream: int

    def arguments(self) -> dict[str, Any]:
        """Returns the kernels' arguments that say which elements are kept."""
        return {
            "seed_pointer": self.seed,
            "keep_scale": 1.0 / (1.0 - self.p),
            "threshold": threshold_bits(self.p),
            "stream": self.stream,
        }


def forward_tiling(width: int, dtype: torch.dtype, num_warps: int) -> Tiling:
    """Returns the tiling of the forward kernel."""
    return choose_tiling(width, dtype, num_warps, MOST_PER_LANE_FORWARD[dtype.itemsize])


def backward_tiling(width: int, dtype: torch.dtype, num_warps: int) -> Tiling:
    """Returns the tiling of the backward kernel."""
    return choose_tiling(width, dtype, num_warps, MOST_PER_LANE_BACKWARD[dtype.itemsize])


def tiling_constants(width: int, tiling: Tiling) -> dict[str, int]:
    """Returns the compile-time constants of a tiling."""
    return {
        "WIDTH": width,
        "TILE_R": tiling.rows,
        "TILE_C": tiling.columns,
        "NUM_TILES": tiling.num_tiles,
    }


def narrowest(first: torch.dtype, second: torch.dtype) -> torch.dtype:
    """Returns the type by which rows are cut where two travel, as under autocast.

    Accesses of the other are 128 bits wide as well then, two for one; cut by the wider type, those
    of the narrower would be half as wide.
    """
    return min(first, second, key=lambda dtype: dtype.itemsize)


def launch_forward(
    branch: Tensor,
    residual: Tensor,
    weight: Tensor,
    bias: Tensor,
    branch_bias: Tensor | None,
    dropout: Dropout,
    epsilon: float,
    is_gelu: bool,
    normed: Tensor,
    summed: Tensor | None,
    statistics: Tensor,
) -> None:
    """Fills ``normed``, ``summed`` where there is one, and fp32 ``statistics`` ``[2, P]``."""
    num_rows, width = branch.shape
    dtype = narrowest(branch.dtype, residual.dtype)
    settings = launch_settings("residual_norm_forward", width, dtype, branch.device)
    tiling = forward_tiling(width, dtype, settings["num_warps"])
    forward_kernel[(-(-num_rows // tiling.rows),)](
        branch,
        residual,
        weight,
        bias,
        branch_bias,
        normed_PH=normed,
        summed_PH=summed,
        statistics_2P=statistics,
        num_rows=num_rows,
        epsilon=epsilon,
        IS_GELU=is_gelu,
        num_warps=settings["num_warps"],
        **tiling_constants(width, tiling),
        **dropout.arguments(),
    )


def num_partials(num_rows: int, width: int, dtype: torch.dtype, device: torch.device) -> int:
    """Returns the number of programs of the backward, each of which stores a partial sum.

    Args:
        num_rows: P.
        width: H.
        dtype: the `narrowest` of the gradients' types.
        device: where they are.
    """
    settings = launch_settings("residual_norm_backward", width, dtype, device)
    tiling = backward_tiling(width, dtype, settings["num_warps"])
    return min(-(-num_rows // tiling.rows), settings["num_programs"])


def launch_backward(
    normed_gradient: Tensor,
    summed_gradient: Tensor | None,
    result: Tensor | None,
    branch: Tensor | None,
    residual: Tensor | None,
    weight: Tensor,
    bias: Tensor,
    branch_bias: Tensor | None,
    dropout: Dropout,
    statistics: Tensor,
    is_gelu: bool,
    is_sum: bool,
    branch_gradient: Tensor | None,
    residual_gradient: Tensor,
    partials: Tensor,
) -> None:
    """Fills the gradients of branch and residual and fp32 ``partials`` ``[G, N, H]``.

    ``branch_gradient`` is ``None`` where it would equal ``residual_gradient``. The parameters are
    weight, bias and, where there is one, the branch's bias.
    """
    num_rows, width = normed_gradient.shape
    dtype = residual_gradient.dtype
    if branch_gradient is not None:
        dtype = narrowest(dtype, branch_gradient.dtype)
    settings = launch_settings("residual_norm_backward", width, dtype, normed_gradient.device)
    tiling = backward_tiling(width, dtype, settings["num_warps"])
    backward_kernel[(partials.shape[0],)](
        normed_gradient,
        summed_gradient,
        result,
        branch,
        residual,
        weight,
        bias,
        branch_bias,
        statistics_2P=statistics,
        branch_gradient_PH=branch_gradient,
        residual_gradient_PH=residual_gradient,
        partials_GNH=partials,
        num_rows=num_rows,
        IS_GELU=is_gelu,
        IS_SUM=is_sum,
        num_warps=settings["num_warps"],
        **tiling_constants(width, tiling),
        **dropout.arguments(),
    )


def launch_reduction(partials: Tensor, sums: Tensor) -> None:
    """Fills ``sums`` ``[N, H]`` with fp32 ``partials`` ``[G, N, H]`` added up."""
    reduction_kernel[(-(-sums.numel() // REDUCTION_TILE_COLUMNS),)](
        partials,
        sums,
        partials.shape[0],
        WIDTH=sums.numel(),
        TILE_G=REDUCTION_TILE_PARTIALS,
        TILE_C=REDUCTION_TILE_COLUMNS,
        num_warps=REDUCTION_WARPS,
    )
