"""The end of a convolution's sub-layer: bias, GELU, dropout, residual and layer norm."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping

import torch
from magicbert_kernels.philox import draw_seed
from magicbert_kernels.residual_norm import residual_norm
from torch import Tensor
from torch.nn import functional

from magicbert.bench.kernels.cases.residual_norm import DROPOUT, EPSILON
from magicbert.bench.kernels.cases.residual_norm import draw as draw_norm
from magicbert.bench.kernels.compiled import compiled
from magicbert.bench.kernels.family import Family, Place
from magicbert.bench.kernels.operation import Function, Inputs, Operation
from magicbert.bench.kernels.sizes import Size
from magicbert.bench.registry import OWN, Floor
from magicbert.bert.modeling.dropout import add_dropped


def operation(place: Place) -> Operation:
    """Returns the operation: judged without dropout, whose masks differ, and timed with it.

    Forward reads two and writes one; backward reads the upstream gradient and two that were kept
    (the branch ahead of its GELU, and what the norm needs), and writes two gradients.
    """
    return Operation(
        draw=functools.partial(draw, place.size, place.device),
        reference=plain,
        differentiated=("branch", "branch_bias", "residual", "weight", "bias"),
        floors={
            "forward": Floor(bytes=3 * place.size.pass_bytes),
            "backward": Floor(bytes=5 * place.size.pass_bytes),
        },
        timed_with={"dropout": DROPOUT},
    )


def draw(size: Size, device: torch.device, seed: int) -> Inputs:
    """Returns the branch without its bias, the bias, and what the norm takes."""
    generator = torch.Generator(device).manual_seed(seed + 1)
    bias = torch.randn(size.width, generator=generator, device=device).to(size.dtype)
    return {**draw_norm(size, device, seed), "branch_bias": bias.requires_grad_()}


def rivals(place: Place) -> Mapping[str, Callable[[], Function]]:
    """Returns who computes it."""
    return {
        OWN: lambda: kernel if place.backend == "triton" else in_encoder,
        "eager": lambda: plain,
        "torch.compile": compiled(plain, place.device),
    }


def kernel(
    branch: Tensor,
    branch_bias: Tensor,
    residual: Tensor,
    weight: Tensor,
    bias: Tensor,
    dropout: float = 0.0,
) -> Tensor:
    """Returns it by magicbert's kernel; the seed of the mask is drawn within the time."""
    seed = draw_seed(branch.device) if dropout else None
    return residual_norm(
        branch,
        residual,
        weight,
        bias,
        epsilon=EPSILON,
        branch_bias=branch_bias,
        activation="gelu",
        dropout=dropout,
        seed=seed,
        backend="triton",
    )


def in_encoder(
    branch: Tensor,
    branch_bias: Tensor,
    residual: Tensor,
    weight: Tensor,
    bias: Tensor,
    dropout: float = 0.0,
) -> Tensor:
    """Returns it as the encoder does where its kernels do not run."""
    summed = add_dropped(residual, functional.gelu(branch + branch_bias), dropout)
    return functional.layer_norm(summed, weight.shape, weight, bias, EPSILON)


def plain(
    branch: Tensor,
    branch_bias: Tensor,
    residual: Tensor,
    weight: Tensor,
    bias: Tensor,
    dropout: float = 0.0,
) -> Tensor:
    """Returns it as one would write it."""
    summed = residual + functional.dropout(functional.gelu(branch + branch_bias), dropout)
    return functional.layer_norm(summed, weight.shape, weight, bias, EPSILON)


FAMILY = Family("GELU, dropout, residual and norm", ("forward", "backward"), operation, rivals, {})
