"""Cross-entropy of a linear layer over a vocabulary, without keeping its logits."""

from __future__ import annotations

import torch
from torch import Tensor

from magicbert_kernels.backend import Backend
from magicbert_kernels.linear_cross_entropy.autograd import run_forward
from magicbert_kernels.linear_cross_entropy.reference import (
    check_inputs,
    linear_cross_entropy_reference,
)

__all__ = ["linear_cross_entropy", "linear_cross_entropy_reference"]


def linear_cross_entropy(
    hidden_MH: Tensor, weight_VH: Tensor, bias_V: Tensor, labels_M: Tensor, *, backend: Backend
) -> tuple[Tensor, Tensor]:
    """Returns the summed loss of ``M`` predictions and how many of them are right.

    Gradients of all three floating tensors are computed together with the loss, chunk by chunk;
    what is kept for the backward is as large as they are.

    Args:
        hidden_MH: what the predictions are made from.
        weight_VH: of the decoder, same type as ``hidden_MH``.
        bias_V: of the decoder, same type as ``hidden_MH``.
        labels_M: int64, each in ``[0, V)``; not checked, that would wait for the device.
        backend: ``triton`` or ``torch``, see `magicbert_kernels.backend.resolve_backend`.

    Returns:
        The loss, a scalar (fp32; fp64 for fp64 inputs), and an int64 scalar: the predictions whose
        largest logit, the first of equals, is the label's.

    Raises:
        ValueError: shapes, types or devices do not fit.
    """
    device_type = hidden_MH.device.type
    if torch.amp.is_autocast_available(device_type) and torch.is_autocast_enabled(device_type):
        narrow = torch.get_autocast_dtype(device_type)
        hidden_MH, weight_VH, bias_V = (t.to(narrow) for t in (hidden_MH, weight_VH, bias_V))
    check_inputs(hidden_MH, weight_VH, bias_V, labels_M)
    return run_forward(hidden_MH, weight_VH, bias_V, labels_M, backend)
