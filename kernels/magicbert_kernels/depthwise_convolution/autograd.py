"""The Triton depthwise convolution as operators of PyTorch, differentiable once.

Custom operators are opaque: ``torch.compile`` does not look into them, autocast does not cast their
arguments, and CUDA graphs record their launches.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor

from magicbert_kernels.depthwise_convolution.launches import (
    launch_backward,
    launch_forward,
    launch_reduction,
    partial_sums,
)


@torch.library.custom_op("magicbert::depthwise_convolution_forward", mutates_args=())
def forward(
    hidden_BSH: Tensor, weight_KH: Tensor, bias_H: Tensor, segment_ids_BS: Tensor | None
) -> Tensor:
    """Returns the convolution, contiguous: 2 passes over the hidden states."""
    output_BSH = torch.empty_like(hidden_BSH, memory_format=torch.contiguous_format)
    if output_BSH.numel():
        launch_forward(
            hidden_BSH.contiguous(),
            weight_KH.contiguous(),
            bias_H.contiguous(),
            contiguous_ids(segment_ids_BS),
            output_BSH,
        )
    return output_BSH


@torch.library.custom_op("magicbert::depthwise_convolution_backward", mutates_args=())
def backward(
    grad_BSH: Tensor, hidden_BSH: Tensor, weight_KH: Tensor, segment_ids_BS: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Returns the gradients of input, weight and bias: 3 passes over the hidden states."""
    grad_hidden_BSH = torch.empty_like(hidden_BSH, memory_format=torch.contiguous_format)
    if not grad_hidden_BSH.numel():
        return grad_hidden_BSH, torch.zeros_like(weight_KH), torch.zeros_like(weight_KH[0])
    grad_weight_KH = torch.empty_like(weight_KH, memory_format=torch.contiguous_format)
    grad_bias_H = torch.empty_like(grad_weight_KH[0])
    partial_PTH = partial_sums(hidden_BSH, len(weight_KH))
    launch_backward(
        grad_BSH.contiguous(),
        hidden_BSH.contiguous(),
        weight_KH.contiguous(),
        contiguous_ids(segment_ids_BS),
        grad_hidden_BSH,
        partial_PTH,
    )
    launch_reduction(partial_PTH, grad_weight_KH, grad_bias_H)
    return grad_hidden_BSH, grad_weight_KH, grad_bias_H


@forward.register_fake
def _(
    hidden_BSH: Tensor, weight_KH: Tensor, bias_H: Tensor, segment_ids_BS: Tensor | None
) -> Tensor:
    return torch.empty_like(hidden_BSH, memory_format=torch.contiguous_format)


@backward.register_fake
def _(
    grad_BSH: Tensor, hidden_BSH: Tensor, weight_KH: Tensor, segment_ids_BS: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    grad_hidden_BSH = torch.empty_like(hidden_BSH, memory_format=torch.contiguous_format)
    grad_weight_KH = torch.empty_like(weight_KH, memory_format=torch.contiguous_format)
    return grad_hidden_BSH, grad_weight_KH, grad_weight_KH.new_empty(weight_KH.shape[1])


def _keep_inputs(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    hidden_BSH, weight_KH, _, segment_ids_BS = inputs
    ctx.save_for_backward(hidden_BSH, weight_KH, segment_ids_BS)


def _differentiate(ctx: Any, grad_BSH: Tensor) -> tuple[Tensor | None, ...]:
    return (*backward(grad_BSH, *ctx.saved_tensors), None)


forward.register_autograd(_differentiate, setup_context=_keep_inputs)


def depthwise_convolution_triton(
    hidden_BSH: Tensor, weight_KH: Tensor, bias_H: Tensor, segment_ids_BS: Tensor | None
) -> Tensor:
    """See `magicbert_kernels.depthwise_convolution.depthwise_convolution`."""
    return cast(Tensor, forward(hidden_BSH, weight_KH, bias_H, segment_ids_BS))


def contiguous_ids(segment_ids_BS: Tensor | None) -> Tensor | None:
    """Returns the ids in rows, one behind the other."""
    return None if segment_ids_BS is None else segment_ids_BS.contiguous()
