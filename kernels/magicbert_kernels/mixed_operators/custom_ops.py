"""The launches as operators of torch: opaque to torch.compile, to autocast and to CUDA graphs."""

from __future__ import annotations

import torch
from torch import Tensor

from magicbert_kernels.mixed_operators.depthwise_kernel import launch_depthwise
from magicbert_kernels.mixed_operators.kernel import launch_bias_gelu, launch_gelu_norm


@torch.library.custom_op("magicbert::mixed_depthwise_forward", mutates_args=())
def depthwise_forward(
    hidden_RSH: Tensor,
    weights_KH: list[Tensor],
    biases_H: list[Tensor],
    operator_ids_R: Tensor,
    segment_ids_RS: Tensor | None,
) -> Tensor:
    """Returns the convolution, contiguous, in the type of the hidden states."""
    output = torch.empty(hidden_RSH.shape, dtype=hidden_RSH.dtype, device=hidden_RSH.device)
    if output.numel():
        launch_depthwise(
            hidden_RSH.contiguous(),
            contiguous(weights_KH),
            contiguous(biases_H),
            operator_ids_R.contiguous(),
            None if segment_ids_RS is None else segment_ids_RS.contiguous(),
            output,
        )
    return output


@torch.library.custom_op("magicbert::mixed_bias_gelu_forward", mutates_args=())
def bias_gelu_forward(inner_RSI: Tensor, biases_I: list[Tensor], operator_ids_R: Tensor) -> Tensor:
    """Returns the activated state, contiguous, in the type of the input."""
    output = torch.empty(inner_RSI.shape, dtype=inner_RSI.dtype, device=inner_RSI.device)
    if output.numel():
        launch_bias_gelu(
            inner_RSI.contiguous(), contiguous(biases_I), operator_ids_R.contiguous(), output
        )
    return output


@torch.library.custom_op("magicbert::mixed_gelu_norm_forward", mutates_args=())
def gelu_norm_forward(
    branch_RSH: Tensor,
    residual_RSH: Tensor,
    biases_H: list[Tensor],
    norm_weights_H: list[Tensor],
    norm_biases_H: list[Tensor],
    operator_ids_R: Tensor,
    epsilon: float,
) -> Tensor:
    """Returns the next hidden state, contiguous, in the residual's type."""
    output = torch.empty(residual_RSH.shape, dtype=residual_RSH.dtype, device=residual_RSH.device)
    if output.numel():
        launch_gelu_norm(
            branch_RSH.contiguous(),
            residual_RSH.contiguous(),
            [contiguous(vectors) for vectors in (biases_H, norm_weights_H, norm_biases_H)],
            operator_ids_R.contiguous(),
            epsilon,
            output,
        )
    return output


@depthwise_forward.register_fake
def _(hidden_RSH: Tensor, *_others: object) -> Tensor:
    return torch.empty(hidden_RSH.shape, dtype=hidden_RSH.dtype, device=hidden_RSH.device)


@bias_gelu_forward.register_fake
def _(inner_RSI: Tensor, *_others: object) -> Tensor:
    return torch.empty(inner_RSI.shape, dtype=inner_RSI.dtype, device=inner_RSI.device)


@gelu_norm_forward.register_fake
def _(_branch_RSH: Tensor, residual_RSH: Tensor, *_others: object) -> Tensor:
    return torch.empty(residual_RSH.shape, dtype=residual_RSH.dtype, device=residual_RSH.device)


def contiguous(tensors: list[Tensor]) -> list[Tensor]:
    """Returns the tensors in dense layouts."""
    return [tensor.contiguous() for tensor in tensors]
