"""The depthwise kernels as training launches them, for compilation ahead of time."""

from __future__ import annotations

import torch

from magicbert_kernels.ahead_of_time import TRITON_TYPES, Compilation
from magicbert_kernels.depthwise_convolution import TRITON_KERNEL_SIZES
from magicbert_kernels.depthwise_convolution.kernel import (
    backward_kernel,
    forward_kernel,
    reduction_kernel,
)
from magicbert_kernels.depthwise_convolution.launches import (
    BACKWARD,
    FORWARD,
    REDUCTION_TILE_C,
    REDUCTION_TILE_P,
    REDUCTION_WARPS,
    Sweeps,
)

WIDTH = 768
SIZES = {"length": "i32", "num_channels": "i32", "chunk": "i32"}


def compilations(dtype: torch.dtype) -> list[Compilation]:
    """Returns forward and backward per kernel size, with segments, and the reduction."""
    found = [_forward(size, dtype) for size in TRITON_KERNEL_SIZES]
    found += [_backward(size, dtype) for size in TRITON_KERNEL_SIZES]
    return [*found, _reduction(dtype)]


def _forward(kernel_size: int, dtype: torch.dtype) -> Compilation:
    kind = f"*{TRITON_TYPES[dtype]}"
    tensors = dict.fromkeys(("hidden_BSH", "weight_KH", "bias_H", "output_BSH"), kind)
    tensors["segment_ids_BS"] = "*i32"
    return Compilation(
        kernel=f"depthwise_convolution forward {kernel_size}",
        function=forward_kernel,
        signature={**tensors, **SIZES},
        constexprs=_constants(FORWARD, kernel_size, dtype),
        num_warps=_sweeps(FORWARD, kernel_size, dtype).num_warps,
        divisible=(*tensors, "num_channels"),
        streamed=("hidden_BSH", "output_BSH"),
    )


def _backward(kernel_size: int, dtype: torch.dtype) -> Compilation:
    kind = f"*{TRITON_TYPES[dtype]}"
    streamed = ("grad_BSH", "hidden_BSH", "grad_hidden_BSH")
    tensors = dict.fromkeys((*streamed, "weight_KH"), kind)
    tensors |= {"segment_ids_BS": "*i32", "partial_PTH": "*fp32"}
    return Compilation(
        kernel=f"depthwise_convolution backward {kernel_size}",
        function=backward_kernel,
        signature={**tensors, "num_chunks": "i32", "chunks_per_program": "i32", **SIZES},
        constexprs=_constants(BACKWARD, kernel_size, dtype),
        num_warps=_sweeps(BACKWARD, kernel_size, dtype).num_warps,
        divisible=(*tensors, "num_channels"),
        streamed=streamed,
    )


def _reduction(dtype: torch.dtype) -> Compilation:
    kind = f"*{TRITON_TYPES[dtype]}"
    tensors = {"partial_PC": "*fp32", "grad_weight_KH": kind, "grad_bias_H": kind}
    sizes = ("num_programs", "num_weights", "num_columns")
    return Compilation(
        kernel="depthwise_convolution reduction",
        function=reduction_kernel,
        signature={**tensors, **dict.fromkeys(sizes, "i32")},
        constexprs={"TILE_P": REDUCTION_TILE_P, "TILE_C": REDUCTION_TILE_C},
        num_warps=REDUCTION_WARPS,
        divisible=(*tensors, "num_weights", "num_columns"),
        streamed=("partial_PC",),
    )


def _constants(kernel: str, kernel_size: int, dtype: torch.dtype) -> dict[str, int | bool]:
    sweeps = _sweeps(kernel, kernel_size, dtype)
    return {
        "K": kernel_size,
        "HAS_SEGMENTS": True,
        "TILE_H": sweeps.tile_channels,
        "STEP": sweeps.step,
    }


def _sweeps(kernel: str, kernel_size: int, dtype: torch.dtype) -> Sweeps:
    return Sweeps.of(kernel, torch.empty(1, 1, WIDTH, dtype=dtype), kernel_size)
