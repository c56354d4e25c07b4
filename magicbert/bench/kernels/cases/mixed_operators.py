"""Rows of one batch through different convolutions: all of a layer but its matrix products."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from magicbert_kernels.backend import Backend
from magicbert_kernels.mixed_operators import (
    OperatorRows,
    mixed_depthwise_convolution,
    mixed_gelu_norm,
)
from magicbert_kernels.mixed_operators.reference import (
    mixed_depthwise_convolution_reference,
    mixed_gelu_norm_reference,
)
from torch import Tensor

from magicbert.bench.kernels.compiled import compiled
from magicbert.bench.kernels.family import Family, Place
from magicbert.bench.kernels.operation import Function, Inputs, Operation
from magicbert.bench.kernels.sizes import Size
from magicbert.bench.registry import OWN, Floor

KERNEL_WIDTHS = (3, 5, 7, 3)
EPSILON = 1e-12


def operation(place: Place) -> Operation:
    """Returns the two operations: read and write, then read two and write."""
    return Operation(
        draw=functools.partial(draw, place.size, place.device),
        reference=one_by_one,
        differentiated=(),
        floors={"forward": Floor(bytes=5 * place.size.pass_bytes)},
    )


def draw(size: Size, device: torch.device, seed: int) -> Inputs:
    """Returns hidden states, weights of every operator, and which rows each gets: uneven shares."""
    generator = torch.Generator(device).manual_seed(seed)

    def noise(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, device=device).to(size.dtype)

    count = len(KERNEL_WIDTHS)
    shares = [size.rows * (index + 1) // 10 for index in range(count - 1)]
    operators = OperatorRows.of_sizes([*shares, size.rows - sum(shares)], device)
    return {
        "hidden": noise(*size.shape),
        "filters": [noise(width, size.width) for width in KERNEL_WIDTHS],
        "vectors": [[noise(size.width) for _ in range(count)] for _ in range(4)],
        "operators": operators,
    }


def rivals(place: Place) -> Mapping[str, Callable[[], Function]]:
    """Returns who computes it."""
    return {
        OWN: lambda: functools.partial(own, backend=place.backend),
        "eager loop": lambda: one_by_one,
        "torch.compile": compiled(one_by_one, place.device),
    }


def own(
    hidden: Tensor,
    filters: Sequence[Tensor],
    vectors: Sequence[Sequence[Tensor]],
    operators: OperatorRows,
    *,
    backend: Backend,
) -> Tensor:
    """Returns it by magicbert's kernels, one launch for the rows of all operators."""
    taps_bias, bias, weight, norm_bias = vectors
    branch = mixed_depthwise_convolution(
        hidden, filters, taps_bias, operators, None, backend=backend
    )
    return mixed_gelu_norm(
        branch, hidden, bias, weight, norm_bias, operators, epsilon=EPSILON, backend=backend
    )


def one_by_one(
    hidden: Tensor, filters: list[Tensor], vectors: list[list[Tensor]], operators: OperatorRows
) -> Any:
    """Returns it operator by operator."""
    taps_bias, bias, weight, norm_bias = vectors
    branch = mixed_depthwise_convolution_reference(hidden, filters, taps_bias, operators, None)
    return mixed_gelu_norm_reference(branch, hidden, bias, weight, norm_bias, operators, EPSILON)


FAMILY = Family(
    "mixed operators",
    ("forward",),
    operation,
    rivals,
    {"forward": ("mixed_depthwise_convolution", "mixed_gelu_norm")},
)
