"""The alignment kernels as training launches them, for compilation ahead of time."""

from __future__ import annotations

import torch

from magicbert_kernels.ahead_of_time import TRITON_TYPES, ArgumentType, Compilation
from magicbert_kernels.alignment_loss.kernel import (
    NUM_WARPS,
    backward_kernel,
    forward_kernel,
    tile_sizes,
)

NUM_BLOCKS = 4
WIDTH = 768


def compilations(dtype: torch.dtype) -> list[Compilation]:
    """Returns forward and backward over 4 blocks of width 768, with a mask."""
    blocks = (f"*{TRITON_TYPES[dtype]}",) * NUM_BLOCKS
    inputs: dict[str, ArgumentType] = {
        "outputs_KPD": blocks,
        "anchors_KPD": blocks,
        "valid_P": "*u8",
    }
    sizes = {"num_positions": "i32", "num_features": "i32"}
    tile_positions, tile_features = tile_sizes(WIDTH)
    constants = {
        "NUM_BLOCKS": NUM_BLOCKS,
        "HAS_VALID": True,
        "TILE_P": tile_positions,
        "TILE_D": tile_features,
    }
    streamed = ("outputs_KPD", "anchors_KPD")
    forward = Compilation(
        kernel="alignment_loss forward",
        function=forward_kernel,
        signature={**inputs, "partial_sums_KT": "*fp32", **sizes},
        constexprs=constants,
        num_warps=NUM_WARPS,
        divisible=(*inputs, "partial_sums_KT", "num_features"),
        streamed=streamed,
    )
    outputs: dict[str, ArgumentType] = {"sums_gradient_K": "*fp32", "gradients_KPD": blocks}
    backward = Compilation(
        kernel="alignment_loss backward",
        function=backward_kernel,
        signature={**inputs, **outputs, **sizes},
        constexprs=constants,
        num_warps=NUM_WARPS,
        divisible=(*inputs, *outputs, "num_features"),
        streamed=(*streamed, "gradients_KPD"),
    )
    return [forward, backward]
