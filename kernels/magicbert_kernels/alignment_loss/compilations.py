"""The alignment kernels as training launches them, for compilation ahead of time."""

from __future__ import annotations

import torch

from magicbert_kernels.ahead_of_time import TRITON_TYPES, ArgumentType, Compilation
from magicbert_kernels.alignment_loss.kernel import (
    KERNEL,
    TILE_ELEMENTS,
    forward_kernel,
    rescale_kernel,
    tile_sizes,
)
from magicbert_kernels.launch_table import launch_settings

NUM_BLOCKS = 4
WIDTH = 768


def compilations(dtype: torch.dtype) -> list[Compilation]:
    """Returns the forward, the sums alone and the backward, over 4 blocks of width 768."""
    blocks = (f"*{TRITON_TYPES[dtype]}",) * NUM_BLOCKS
    num_warps = launch_settings(KERNEL, WIDTH, dtype, torch.device("cpu"))["num_warps"]
    backward = Compilation(
        kernel="alignment_loss backward",
        function=rescale_kernel,
        signature={
            "gradients_KN": blocks,
            "sums_gradient_K": "*fp32",
            "expected": "fp32",
            "num_elements": "i32",
        },
        constexprs={"NUM_BLOCKS": NUM_BLOCKS, "TILE": TILE_ELEMENTS},
        num_warps=num_warps,
        divisible=("gradients_KN", "sums_gradient_K", "num_elements"),
        streamed=("gradients_KN",),
    )
    return [
        _forward(blocks, num_warps, has_gradient=True),
        _forward(blocks, num_warps, has_gradient=False),
        backward,
    ]


def _forward(blocks: ArgumentType, num_warps: int, *, has_gradient: bool) -> Compilation:
    tile_positions, tile_features = tile_sizes(WIDTH)
    tensors: dict[str, ArgumentType] = {
        "outputs_KPD": blocks,
        "anchors_KPD": blocks,
        "valid_P": "*u8",
        "gradients_KPD": blocks,
        "partial_sums_KR": "*fp32",
    }
    streamed = ("outputs_KPD", "anchors_KPD")
    return Compilation(
        kernel=f"alignment_loss {'forward' if has_gradient else 'sums'}",
        function=forward_kernel,
        signature={**tensors, "scale": "fp32", "num_positions": "i32", "num_features": "i32"},
        constexprs={
            "NUM_BLOCKS": NUM_BLOCKS,
            "HAS_VALID": True,
            "HAS_GRADIENT": has_gradient,
            "TILE_P": tile_positions,
            "TILE_D": tile_features,
        },
        num_warps=num_warps,
        divisible=(*tensors, "num_features"),
        streamed=(*streamed, "gradients_KPD") if has_gradient else streamed,
    )
