"""The mixed operators as a layer of two convolutions launches them, for compilation ahead."""

from __future__ import annotations

import torch

from magicbert_kernels.ahead_of_time import TRITON_TYPES, ArgumentType, Compilation
from magicbert_kernels.depthwise_convolution.launches import Sweeps
from magicbert_kernels.launch_table import launch_settings
from magicbert_kernels.mixed_operators.depthwise_kernel import DEPTHWISE, depthwise_kernel
from magicbert_kernels.mixed_operators.kernel import (
    bias_gelu_kernel,
    chunk_width,
    gelu_norm_kernel,
    tile_positions,
)

# The narrowest and the widest: each is a sweep of its own within the kernel.
FILTER_WIDTHS = (3, 7)
WIDTH = 768
INNER_WIDTH = 1536


def compilations(dtype: torch.dtype) -> list[Compilation]:
    """Returns all three kernels at width 768 (inner width 1536), rows packed."""
    return [depthwise(dtype), bias_gelu(dtype), gelu_norm(dtype)]


def depthwise(dtype: torch.dtype) -> Compilation:
    """Returns the convolution over filters of widths 3 and 7."""
    tensor, vectors = types(dtype)
    sweeps = Sweeps.of(DEPTHWISE, torch.empty(1, 1, WIDTH, dtype=dtype), max(FILTER_WIDTHS))
    pointers: dict[str, ArgumentType] = {
        "hidden_RSH": tensor,
        "weights_KH": vectors,
        "biases_H": vectors,
        "segment_ids_RS": "*i64",
        "output_RSH": tensor,
    }
    return Compilation(
        kernel="mixed_operators depthwise",
        function=depthwise_kernel,
        signature={**pointers, **sizes("num_channels"), "chunk": "i32"},
        constexprs={
            "WIDTHS": FILTER_WIDTHS,
            "HAS_SEGMENTS": True,
            "TILE_H": sweeps.tile_channels,
            "STEP": sweeps.step,
        },
        num_warps=sweeps.num_warps,
        divisible=(*pointers, "num_channels"),
        streamed=("hidden_RSH", "output_RSH"),
    )


def bias_gelu(dtype: torch.dtype) -> Compilation:
    """Returns bias and GELU at the inner width."""
    tensor, vectors = types(dtype)
    pointers: dict[str, ArgumentType] = {
        "inner_RSI": tensor,
        "biases_I": vectors,
        "output_RSI": tensor,
    }
    tile_features = chunk_width(INNER_WIDTH)
    return Compilation(
        kernel="mixed_operators bias_gelu",
        function=bias_gelu_kernel,
        signature={**pointers, **sizes("num_features")},
        constexprs={
            "NUM_OPERATORS": len(FILTER_WIDTHS),
            "TILE_S": tile_positions(tile_features),
            "TILE_I": tile_features,
        },
        num_warps=num_warps("mixed_bias_gelu", dtype),
        divisible=(*pointers, "num_features"),
        streamed=("inner_RSI", "output_RSI"),
    )


def gelu_norm(dtype: torch.dtype) -> Compilation:
    """Returns bias, GELU, residual and norm."""
    tensor, vectors = types(dtype)
    pointers: dict[str, ArgumentType] = {
        "branch_RSH": tensor,
        "residual_RSH": tensor,
        "biases_H": vectors,
        "norm_weights_H": vectors,
        "norm_biases_H": vectors,
        "output_RSH": tensor,
    }
    tile_features = chunk_width(WIDTH)
    num_chunks = -(-WIDTH // tile_features)
    return Compilation(
        kernel="mixed_operators gelu_norm",
        function=gelu_norm_kernel,
        signature={**pointers, **sizes("num_features"), "epsilon": "fp32"},
        constexprs={
            "NUM_OPERATORS": len(FILTER_WIDTHS),
            "NUM_CHUNKS": num_chunks,
            "TILE_S": tile_positions(num_chunks * tile_features),
            "TILE_H": tile_features,
        },
        num_warps=num_warps("mixed_gelu_norm", dtype),
        divisible=(*pointers, "num_features"),
        streamed=("branch_RSH", "residual_RSH", "output_RSH"),
    )


def types(dtype: torch.dtype) -> tuple[str, tuple[str, ...]]:
    """Returns the types of a tensor and of one vector per operator."""
    tensor = f"*{TRITON_TYPES[dtype]}"
    return tensor, (tensor,) * len(FILTER_WIDTHS)


def sizes(width: str) -> dict[str, ArgumentType]:
    """Returns the types of the arguments that all three kernels have."""
    return {"operator_ids_R": "*i64", "length": "i32", width: "i32"}


def num_warps(kernel: str, dtype: torch.dtype) -> int:
    """Returns the setting for a device that the launch table does not name."""
    return launch_settings(kernel, WIDTH, dtype, torch.device("cpu"))["num_warps"]
