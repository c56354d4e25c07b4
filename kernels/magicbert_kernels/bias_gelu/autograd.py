"""The Triton bias and GELU as operators of PyTorch; kept for the backward is ``inner`` alone."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor

from magicbert_kernels.bias_gelu.kernel import launch_backward, launch_forward, new_partial_sums


@torch.library.custom_op("magicbert::bias_gelu_forward", mutates_args=())
def forward(
    inner: Tensor, bias: Tensor, seed: Tensor | None, stream: int, dropout: float
) -> Tensor:
    """Returns the activation, contiguous, in ``inner``'s type; no seed = no dropout."""
    output = torch.empty_like(inner, memory_format=torch.contiguous_format)
    if inner.numel():
        shape = (-1, inner.shape[-1])
        flat_inner, flat_output = inner.reshape(shape).contiguous(), output.view(shape)
        launch_forward(flat_inner, bias.contiguous(), flat_output, seed, stream, dropout)
    return output


@torch.library.custom_op("magicbert::bias_gelu_backward", mutates_args=())
def backward(
    gradient: Tensor,
    inner: Tensor,
    bias: Tensor,
    seed: Tensor | None,
    stream: int,
    dropout: float,
) -> tuple[Tensor, Tensor]:
    """Returns the gradients of ``inner`` and ``bias``."""
    inner_gradient = torch.empty_like(inner, memory_format=torch.contiguous_format)
    if not inner.numel():
        return inner_gradient, torch.zeros_like(bias)
    shape = (-1, inner.shape[-1])
    flat_inner = inner.reshape(shape).contiguous()
    partial_sums = new_partial_sums(flat_inner)
    launch_backward(
        gradient.reshape(shape).contiguous(),
        flat_inner,
        bias.contiguous(),
        inner_gradient.view(shape),
        partial_sums,
        seed,
        stream,
        dropout,
    )
    return inner_gradient, partial_sums.sum(dim=0).to(bias.dtype)


@forward.register_fake
def _(inner: Tensor, bias: Tensor, seed: Tensor | None, stream: int, dropout: float) -> Tensor:
    return torch.empty_like(inner, memory_format=torch.contiguous_format)


@backward.register_fake
def _(
    gradient: Tensor,
    inner: Tensor,
    bias: Tensor,
    seed: Tensor | None,
    stream: int,
    dropout: float,
) -> tuple[Tensor, Tensor]:
    inner_gradient = torch.empty_like(inner, memory_format=torch.contiguous_format)
    return inner_gradient, torch.empty_like(bias, memory_format=torch.contiguous_format)


def _keep_inputs(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    inner, bias, seed, ctx.stream, ctx.dropout = inputs
    ctx.save_for_backward(inner, bias, seed)


def _differentiate(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
    inner, bias, seed = ctx.saved_tensors
    found = backward(gradient, inner, bias, seed, ctx.stream, ctx.dropout)
    return (*found, None, None, None)


forward.register_autograd(_differentiate, setup_context=_keep_inputs)


def bias_gelu_triton(
    inner: Tensor, bias: Tensor, seed: Tensor | None, stream: int, dropout: float
) -> Tensor:
    """Returns ``Dropout(GELU(inner + bias))``; see `magicbert_kernels.bias_gelu.bias_gelu`.

    Raises:
        ValueError: an argument is fp64, which the kernels would round.
    """
    if torch.float64 in (inner.dtype, bias.dtype):
        raise ValueError("the triton backend computes in fp32: use torch for fp64")
    return cast(Tensor, forward(inner, bias, seed, stream, dropout))
