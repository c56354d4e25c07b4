"""The bias and GELU kernels as training launches them, for compilation ahead of time."""

from __future__ import annotations

import torch

from magicbert_kernels.ahead_of_time import TRITON_TYPES, ArgumentType, Compilation
from magicbert_kernels.bias_gelu.kernel import backward_kernel, forward_kernel, tile_sizes
from magicbert_kernels.launch_table import launch_settings

WIDTH = 3072


def compilations(dtype: torch.dtype) -> list[Compilation]:
    """Returns forward and backward at width 3072, with and without dropout."""
    hidden = f"*{TRITON_TYPES[dtype]}"
    inputs: dict[str, ArgumentType] = {"inner_MF": hidden, "bias_F": hidden}
    forward_tensors = {**inputs, "output_MF": hidden}
    backward_tensors = {
        "gradient_MF": hidden,
        **inputs,
        "inner_gradient_MF": hidden,
        "partial_sums_RF": "*fp32",
    }
    return [
        _compilation(name, function, tensors, dtype, has_dropout=has_dropout)
        for name, function, tensors in (
            ("forward", forward_kernel, forward_tensors),
            ("backward", backward_kernel, backward_tensors),
        )
        for has_dropout in (False, True)
    ]


def _compilation(
    name: str,
    function: object,
    tensors: dict[str, ArgumentType],
    dtype: torch.dtype,
    *,
    has_dropout: bool,
) -> Compilation:
    settings = launch_settings(f"bias_gelu_{name}", WIDTH, dtype, torch.device("cpu"))
    tile_rows, tile_features = tile_sizes(WIDTH)
    numbers: dict[str, ArgumentType] = {
        "seed_pointer": "*i64" if has_dropout else tensors["bias_F"],
        "stream": "i32",
        "threshold": "i32",
        "scale": "fp32",
        "num_rows": "i32",
        "num_features": "i32",
    }
    return Compilation(
        kernel=f"bias_gelu {name}{' dropout' if has_dropout else ''}",
        function=function,
        signature={**tensors, **numbers},
        constexprs={
            "HAS_DROPOUT": has_dropout,
            "BY_FOURS": True,
            "TILE_M": tile_rows,
            "TILE_F": tile_features,
        },
        num_warps=settings["num_warps"],
        divisible=(*tensors, "seed_pointer", "num_features"),
        streamed=tuple(tensor for tensor in tensors if tensor.endswith("_MF")),
    )
