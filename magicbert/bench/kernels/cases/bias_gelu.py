"""Bias and GELU of a feed-forward layer, four times as wide as the model."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import torch
from magicbert_kernels.bias_gelu import bias_gelu
from torch import Tensor
from torch.nn import functional

from magicbert.bench.kernels.compiled import compiled
from magicbert.bench.kernels.family import Family, Place
from magicbert.bench.kernels.operation import Function, Inputs, Operation
from magicbert.bench.kernels.sizes import Size
from magicbert.bench.registry import OWN, AbsentError, Floor

EXPANSION = 4


def operation(place: Place) -> Operation:
    """Returns the operation: read and write forward; read two and write one backward."""
    inner_bytes = EXPANSION * place.size.pass_bytes
    return Operation(
        draw=functools.partial(draw, place.size, place.device),
        reference=plain,
        differentiated=("inner", "bias"),
        floors={
            "forward": Floor(bytes=2 * inner_bytes),
            "backward": Floor(bytes=3 * inner_bytes),
        },
    )


def draw(size: Size, device: torch.device, seed: int) -> Inputs:
    """Returns a product of matrices and the bias that belongs to it."""
    generator = torch.Generator(device).manual_seed(seed)
    width = EXPANSION * size.width
    shapes = {"inner": (*size.shape[:2], width), "bias": (width,)}
    return {
        name: torch.randn(shape, generator=generator, device=device).to(size.dtype).requires_grad_()
        for name, shape in shapes.items()
    }


def rivals(place: Place) -> Mapping[str, Callable[[], Function]]:
    """Returns who computes it."""
    return {
        OWN: lambda: functools.partial(bias_gelu, backend=place.backend),
        "eager": lambda: plain,
        "torch.compile": compiled(plain, place.device),
        "Liger": no_liger,
    }


def plain(inner: Tensor, bias: Tensor) -> Tensor:
    """Returns it as one would write it."""
    return functional.gelu(inner + bias)


def no_liger() -> Any:
    """Raises: what Liger has is a gated form."""
    raise AbsentError("has GEGLU, no bias with GELU")


FAMILY = Family(
    "bias and GELU",
    ("forward", "backward"),
    operation,
    rivals,
    {"forward": ("bias_gelu_forward",), "backward": ("bias_gelu_backward",)},
)
