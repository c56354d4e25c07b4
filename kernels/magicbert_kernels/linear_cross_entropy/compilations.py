"""The row kernel as training and evaluation launch it, for compilation ahead of time."""

from __future__ import annotations

import torch

from magicbert_kernels.ahead_of_time import TRITON_TYPES, Compilation
from magicbert_kernels.launch_table import launch_settings
from magicbert_kernels.linear_cross_entropy.kernel import TILE, rows_kernel

VOCAB_SIZE = 30522


def compilations(dtype: torch.dtype) -> list[Compilation]:
    """Returns the kernel with and without the gradient."""
    settings = launch_settings("linear_cross_entropy_rows", VOCAB_SIZE, dtype, torch.device("cpu"))
    return [
        Compilation(
            kernel=f"linear_cross_entropy {name}",
            function=rows_kernel,
            signature={
                "logits_MP": f"*{TRITON_TYPES[dtype]}",
                "labels_M": "*i64",
                "losses_M": "*fp32",
                "hits_M": "*i32",
                "vocab_size": "i32",
                "padded_size": "i32",
            },
            constexprs={"WANTS_GRADIENT": wants_gradient, "TILE_V": TILE},
            num_warps=settings["num_warps"],
            divisible=("logits_MP", "labels_M", "losses_M", "hits_M", "padded_size"),
            streamed=("logits_MP",),
        )
        for name, wants_gradient in (("training", True), ("evaluation", False))
    ]
