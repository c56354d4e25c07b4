"""Dropout, residual and layer norm: the end of every sub-layer."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import torch
from magicbert_kernels.philox import draw_seed
from magicbert_kernels.residual_norm import residual_norm
from torch import Tensor
from torch.nn import functional

from magicbert.bench.kernels import peers
from magicbert.bench.kernels.compiled import compiled
from magicbert.bench.kernels.family import Family, Place
from magicbert.bench.kernels.operation import Function, Inputs, Operation
from magicbert.bench.kernels.sizes import Size
from magicbert.bench.registry import OWN, Floor
from magicbert.bert.modeling.dropout import add_dropped

EPSILON = 1e-12
DROPOUT = 0.1


def operation(place: Place) -> Operation:
    """Returns the operation: judged without dropout, whose masks differ, and timed with it.

    Forward reads two and writes one; backward reads the upstream gradient and what was kept, and
    writes two gradients.
    """
    return Operation(
        draw=functools.partial(draw, place.size, place.device),
        reference=plain,
        differentiated=("branch", "residual", "weight", "bias"),
        floors={
            "forward": Floor(bytes=3 * place.size.pass_bytes),
            "backward": Floor(bytes=4 * place.size.pass_bytes),
        },
        timed_with={"dropout": DROPOUT},
    )


def draw(size: Size, device: torch.device, seed: int) -> Inputs:
    """Returns the branch, what it is added to, and the norm's weights."""
    generator = torch.Generator(device).manual_seed(seed)

    def noise(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, device=device)

    tensors = {
        "branch": noise(*size.shape),
        "residual": noise(*size.shape),
        "weight": 1 + 0.1 * noise(size.width),
        "bias": 0.1 * noise(size.width),
    }
    return {name: value.to(size.dtype).requires_grad_() for name, value in tensors.items()}


def rivals(place: Place) -> Mapping[str, Callable[[], Function]]:
    """Returns who computes it."""
    return {
        OWN: lambda: kernel if place.backend == "triton" else in_encoder,
        "eager": lambda: plain,
        "torch.compile": compiled(plain, place.device),
        "Liger": lambda: after_plain_addition(liger_norm(place.device)),
        "flash-attn": lambda: flash_attention(place),
        "FLA": lambda: flash_linear_attention(place.device),
        "apex": lambda: after_plain_addition(apex_norm(place.device)),
    }


def kernel(
    branch: Tensor, residual: Tensor, weight: Tensor, bias: Tensor, dropout: float = 0.0
) -> Tensor:
    """Returns it by magicbert's kernel; the seed of the mask is drawn within the time."""
    seed = draw_seed(branch.device) if dropout else None
    return residual_norm(
        branch,
        residual,
        weight,
        bias,
        epsilon=EPSILON,
        dropout=dropout,
        seed=seed,
        backend="triton",
    )


def in_encoder(
    branch: Tensor, residual: Tensor, weight: Tensor, bias: Tensor, dropout: float = 0.0
) -> Tensor:
    """Returns it as the encoder does where its kernels do not run."""
    summed = add_dropped(residual, branch, dropout)
    return functional.layer_norm(summed, weight.shape, weight, bias, EPSILON)


def plain(
    branch: Tensor, residual: Tensor, weight: Tensor, bias: Tensor, dropout: float = 0.0
) -> Tensor:
    """Returns it as one would write it."""
    summed = residual + functional.dropout(branch, dropout)
    return functional.layer_norm(summed, weight.shape, weight, bias, EPSILON)


def after_plain_addition(norm: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Function:
    """Returns torch's dropout and addition with another's norm after them."""

    def call(
        branch: Tensor, residual: Tensor, weight: Tensor, bias: Tensor, dropout: float = 0.0
    ) -> Tensor:
        return norm(residual + functional.dropout(branch, dropout), weight, bias)

    return call


def liger_norm(device: torch.device) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """Returns Liger's layer norm."""
    function = peers.offered("liger_kernel.ops.layer_norm", "LigerLayerNormFunction", device)
    return lambda summed, weight, bias: function.apply(summed, weight, bias, EPSILON)


def apex_norm(device: torch.device) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """Returns apex's fused layer norm."""
    function = peers.apex_layer_norm(device)
    return lambda summed, weight, bias: function(summed, weight, bias, weight.shape, EPSILON)


def flash_attention(place: Place) -> Function:
    """Returns flash-attention's Triton norm, which fuses dropout and residual as well."""
    function = peers.flash_layer_norm(place.device, place.setting.flash_layer_norm)

    def call(
        branch: Tensor, residual: Tensor, weight: Tensor, bias: Tensor, dropout: float = 0.0
    ) -> Any:
        return function(
            branch, weight, bias, residual=residual, eps=EPSILON, dropout_p=dropout, prenorm=False
        )

    return call


def flash_linear_attention(device: torch.device) -> Function:
    """Returns FLA's norm, which fuses the residual; dropout is torch's."""
    function = peers.offered("fla.modules.layernorm", "layer_norm", device)

    def call(
        branch: Tensor, residual: Tensor, weight: Tensor, bias: Tensor, dropout: float = 0.0
    ) -> Any:
        dropped = functional.dropout(branch, dropout)
        return function(dropped, weight, bias, residual=residual, eps=EPSILON, prenorm=False)

    return call


FAMILY = Family(
    "dropout, residual and norm",
    ("forward", "backward"),
    operation,
    rivals,
    {"forward": ("residual_norm_forward",), "backward": ("residual_norm_backward",)},
)
