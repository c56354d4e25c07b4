"""The mixed operators in plain PyTorch, operator by operator: what the kernels must equal."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from magicbert_kernels.mixed_operators.operator_rows import OperatorRows


def mixed_depthwise_convolution_reference(
    hidden_RSH: Tensor,
    weights_KH: Sequence[Tensor],
    biases_H: Sequence[Tensor],
    operators: OperatorRows,
    segment_ids_RS: Tensor | None,
) -> Tensor:
    """Returns `mixed_depthwise_convolution`, differentiable, in the type of the inputs."""
    hiddens = operators.split(hidden_RSH)
    ids: Sequence[Tensor | None] = [None] * len(hiddens)
    if segment_ids_RS is not None:
        ids = operators.split(segment_ids_RS)
    outputs = [
        centred_convolution(*given)
        for given in zip(hiddens, weights_KH, biases_H, ids, strict=True)
    ]
    return torch.cat(outputs)


def centred_convolution(
    hidden_RSH: Tensor, weight_KH: Tensor, bias_H: Tensor, segment_ids_RS: Tensor | None
) -> Tensor:
    """Returns one operator's convolution: a sum over its taps of shifted products."""
    output_RSH = bias_H.to(hidden_RSH.dtype).expand_as(hidden_RSH)
    middle = len(weight_KH) // 2
    for tap, weight_H in enumerate(weight_KH.to(hidden_RSH.dtype)):
        seen_RSH = shifted(hidden_RSH, tap - middle)
        if segment_ids_RS is not None:
            there_RS = shifted(segment_ids_RS[..., None], tap - middle)[..., 0]
            is_seen_RS = (there_RS == segment_ids_RS) & (segment_ids_RS > 0)
            seen_RSH = torch.where(is_seen_RS[..., None], seen_RSH, 0.0)
        output_RSH = output_RSH + seen_RSH * weight_H
    return output_RSH


def shifted(values_RSH: Tensor, offset: int) -> Tensor:
    """Returns what stands ``offset`` positions further; zero outside the row."""
    length = values_RSH.shape[1]
    inside = max(length - abs(offset), 0)
    padding = values_RSH.new_zeros(len(values_RSH), length - inside, values_RSH.shape[2])
    if offset >= 0:
        return torch.cat([values_RSH[:, length - inside :], padding], dim=1)
    return torch.cat([padding, values_RSH[:, :inside]], dim=1)


def mixed_bias_gelu_reference(
    inner_RSI: Tensor, biases_I: Sequence[Tensor], operators: OperatorRows
) -> Tensor:
    """Returns `mixed_bias_gelu`, differentiable, in the type of the input."""
    parts = zip(operators.split(inner_RSI), biases_I, strict=True)
    return torch.cat([F.gelu(part + bias.to(part.dtype)) for part, bias in parts])


def mixed_gelu_norm_reference(
    branch_RSH: Tensor,
    residual_RSH: Tensor,
    biases_H: Sequence[Tensor],
    norm_weights_H: Sequence[Tensor],
    norm_biases_H: Sequence[Tensor],
    operators: OperatorRows,
    epsilon: float,
) -> Tensor:
    """Returns `mixed_gelu_norm`, differentiable, in the residual's type."""
    activated = mixed_bias_gelu_reference(branch_RSH, biases_H, operators)
    summed_RSH = residual_RSH + activated.to(residual_RSH.dtype)
    parts = zip(operators.split(summed_RSH), norm_weights_H, norm_biases_H, strict=True)
    return torch.cat(
        [
            F.layer_norm(part, part.shape[-1:], weight.to(part.dtype), bias.to(part.dtype), epsilon)
            for part, weight, bias in parts
        ]
    )
