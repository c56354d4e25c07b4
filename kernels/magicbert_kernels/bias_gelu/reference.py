"""Bias and GELU in plain PyTorch: what the kernel must equal, and the ``torch`` backend."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from magicbert_kernels.philox import check_dropout, dropout_reference


def bias_gelu_reference(
    inner: Tensor,
    bias: Tensor,
    *,
    dropout: float = 0.0,
    seed: Tensor | None = None,
    stream: int = 0,
) -> Tensor:
    """Returns ``Dropout(GELU(inner + bias))`` in ``inner``'s type; see `bias_gelu`."""
    activated = F.gelu(inner + bias.to(inner.dtype))
    if seed is None or not dropout:
        return activated
    return dropout_reference(activated, seed, stream, dropout)


def check_inputs(inner: Tensor, bias: Tensor, dropout: float, seed: Tensor | None) -> None:
    """Raises ``ValueError`` unless there is one bias per feature, and a seed for the dropout."""
    if inner.dim() == 0 or bias.shape != inner.shape[-1:]:
        raise ValueError(f"bias must be [features] of {tuple(inner.shape)}: {tuple(bias.shape)}")
    if bias.device != inner.device:
        raise ValueError(f"inner is on {inner.device}, bias on {bias.device}")
    check_dropout(dropout, seed, inner.device)
