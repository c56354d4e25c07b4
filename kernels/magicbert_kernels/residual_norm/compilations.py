"""The residual norm's kernels as training launches them, for compilation ahead of time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from magicbert_kernels.ahead_of_time import TRITON_TYPES, ArgumentType, Compilation
from magicbert_kernels.residual_norm.backward_kernel import backward_kernel, reduction_kernel
from magicbert_kernels.residual_norm.kernel import forward_kernel
from magicbert_kernels.residual_norm.launches import (
    REDUCTION_TILE_COLUMNS,
    REDUCTION_TILE_PARTIALS,
    REDUCTION_WARPS,
    backward_tiling,
    forward_tiling,
    tiling_constants,
)

WIDTH = 768
NUM_WARPS = 4
SCALARS = {"num_rows": "i32", "keep_scale": "fp32", "threshold": "i32", "stream": "i32"}
PARAMETERS = {"weight_H": "*fp32", "bias_H": "*fp32"}


@dataclass(frozen=True, slots=True)
class Variant:
    """One use of the kernels: what stands before the norm, and what is returned."""

    name: str
    has_dropout: bool
    is_gelu: bool = False
    is_prenorm: bool = False


TRAINED = (
    Variant("dropout", has_dropout=True),
    Variant("bias gelu dropout", has_dropout=True, is_gelu=True),
)
OTHERS = (
    Variant("no dropout", has_dropout=False),
    Variant("dropout prenorm", has_dropout=True, is_prenorm=True),
    Variant("bias gelu dropout prenorm", has_dropout=True, is_gelu=True, is_prenorm=True),
)


def compilations(dtype: torch.dtype) -> list[Compilation]:
    """Returns what pre-training at base width launches: both directions, and the reduction."""
    found = [make(variant, WIDTH, dtype) for variant in TRAINED for make in (forward, backward)]
    return [*found, reduction()]


def forward(variant: Variant, width: int, dtype: torch.dtype) -> Compilation:
    """Returns the forward kernel of a variant."""
    stream = f"*{TRITON_TYPES[dtype]}"
    given: dict[str, ArgumentType | None] = {
        "branch_PH": stream,
        "residual_PH": stream,
        **PARAMETERS,
        **optional(variant),
        "normed_PH": stream,
        "summed_PH": stream if variant.is_prenorm else None,
        "statistics_2P": "*fp32",
        "epsilon": "fp32",
        **SCALARS,
    }
    constants = tiling_constants(width, forward_tiling(width, dtype, NUM_WARPS))
    name = f"residual_norm forward, {variant.name}"
    return compilation(name, forward_kernel, given, {**constants, "IS_GELU": variant.is_gelu})


def backward(variant: Variant, width: int, dtype: torch.dtype) -> Compilation:
    """Returns the backward kernel of a variant."""
    stream = f"*{TRITON_TYPES[dtype]}"
    has_result = variant.is_prenorm or not variant.is_gelu
    given: dict[str, ArgumentType | None] = {
        "normed_gradient_PH": stream,
        "summed_gradient_PH": stream if variant.is_prenorm else None,
        "result_PH": stream if has_result else None,
        "branch_PH": stream if variant.is_gelu or not variant.is_prenorm else None,
        "residual_PH": None if variant.is_prenorm else stream,
        **PARAMETERS,
        **optional(variant),
        "statistics_2P": "*fp32",
        "branch_gradient_PH": stream if variant.has_dropout or variant.is_gelu else None,
        "residual_gradient_PH": stream,
        "partials_GNH": "*fp32",
        **SCALARS,
    }
    constants: dict[str, Any] = {
        **tiling_constants(width, backward_tiling(width, dtype, NUM_WARPS)),
        "IS_GELU": variant.is_gelu,
        "IS_SUM": variant.is_prenorm,
    }
    name = f"residual_norm backward, {variant.name}"
    return compilation(name, backward_kernel, given, constants)


def optional(variant: Variant) -> dict[str, ArgumentType | None]:
    """Returns the types of what only some variants have: the branch's bias and the seed."""
    return {
        "branch_bias_H": "*fp32" if variant.is_gelu else None,
        "seed_pointer": "*i64" if variant.has_dropout else None,
    }


def compilation(
    name: str, function: Any, given: dict[str, ArgumentType | None], constants: dict[str, Any]
) -> Compilation:
    """Returns a compilation; arguments without a type are not there, a constant ``None``."""
    signature = {key: kind for key, kind in given.items() if kind is not None}
    absent = dict.fromkeys(key for key, kind in given.items() if kind is None)
    pointers = tuple(key for key, kind in signature.items() if kind[0] == "*")
    return Compilation(
        kernel=name,
        function=function,
        signature=signature,
        constexprs={**constants, **absent},
        num_warps=NUM_WARPS,
        divisible=pointers,
        streamed=tuple(key for key in pointers if key.endswith("_PH")),
    )


def reduction() -> Compilation:
    """Returns the kernel that adds up the partial sums of two parameters at base width."""
    return Compilation(
        kernel="residual_norm reduction",
        function=reduction_kernel,
        signature={"partials_GC": "*fp32", "sums_C": "*fp32", "num_partials": "i32"},
        constexprs={
            "WIDTH": 2 * WIDTH,
            "TILE_G": REDUCTION_TILE_PARTIALS,
            "TILE_C": REDUCTION_TILE_COLUMNS,
        },
        num_warps=REDUCTION_WARPS,
        divisible=("partials_GC", "sums_C"),
        streamed=("partials_GC",),
    )
