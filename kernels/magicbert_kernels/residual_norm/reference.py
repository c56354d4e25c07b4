"""Dropout, residual and LayerNorm in plain PyTorch: what the kernel must equal."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from magicbert_kernels.philox import check_dropout, dropout_reference

Activation = Literal["none", "gelu"]
ACTIVATIONS = ("none", "gelu")


def residual_norm_reference(
    branch: Tensor,
    residual: Tensor,
    weight_H: Tensor,
    bias_H: Tensor,
    *,
    epsilon: float,
    branch_bias: Tensor | None = None,
    activation: Activation = "none",
    dropout: float = 0.0,
    seed: Tensor | None = None,
    stream: int = 0,
) -> tuple[Tensor, Tensor]:
    """Returns the normalised sum and the sum, both in the residual's type.

    Computed in fp32 (fp64 for fp64 inputs) and rounded at the end, with the very mask that the
    kernel has; see `magicbert_kernels.residual_norm.residual_norm` for the arguments.
    """
    wide = torch.promote_types(torch.promote_types(branch.dtype, residual.dtype), torch.float32)
    value = branch.to(wide)
    if branch_bias is not None:
        value = value + branch_bias.to(wide)
    if activation == "gelu":
        value = F.gelu(value)
    if dropout:
        assert seed is not None
        value = dropout_reference(value, seed, stream, dropout)
    summed = residual.to(wide) + value
    width = (summed.shape[-1],)
    normed = F.layer_norm(summed, width, weight_H.to(wide), bias_H.to(wide), epsilon)
    return normed.to(residual.dtype), summed.to(residual.dtype)


def check_inputs(
    branch: Tensor,
    residual: Tensor,
    features: dict[str, Tensor | None],
    activation: str,
    dropout: float,
    seed: Tensor | None,
) -> None:
    """Raises ``ValueError`` unless shapes and devices fit together and the options exist."""
    if branch.shape != residual.shape or branch.device != residual.device or branch.dim() == 0:
        raise ValueError(
            f"branch and residual differ: {tuple(branch.shape)} on {branch.device} and "
            f"{tuple(residual.shape)} on {residual.device}"
        )
    width = branch.shape[-1:]
    for name, tensor in features.items():
        if tensor is not None and (tensor.shape, tensor.device) != (width, branch.device):
            raise ValueError(
                f"{name} must be {tuple(width)} on {branch.device}, got {tuple(tensor.shape)} "
                f"on {tensor.device}"
            )
    if activation not in ACTIVATIONS:
        raise ValueError(f"activation must be one of {', '.join(ACTIVATIONS)}, got {activation!r}")
    check_dropout(dropout, seed, branch.device)
