"""The loss in plain PyTorch: what the chunked form must equal. It keeps all logits.

Shape suffixes: M predictions, H hidden, V vocabulary.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def linear_cross_entropy_reference(
    hidden_MH: Tensor, weight_VH: Tensor, bias_V: Tensor, labels_M: Tensor
) -> tuple[Tensor, Tensor]:
    """Returns the loss sum and the number of right predictions; see `linear_cross_entropy`."""
    wide = torch.promote_types(hidden_MH.dtype, torch.float32)
    logits_MV = F.linear(hidden_MH, weight_VH, bias_V).to(wide)
    loss_sum = F.cross_entropy(logits_MV, labels_M, reduction="sum")
    return loss_sum, (logits_MV.detach().argmax(-1) == labels_M).sum()


def check_inputs(hidden_MH: Tensor, weight_VH: Tensor, bias_V: Tensor, labels_M: Tensor) -> None:
    """Raises ``ValueError`` unless shapes, types and devices fit together."""
    num_labels, (size, width) = len(labels_M), weight_VH.shape
    expected = {"hidden": (num_labels, width), "weight": (size, width), "bias": (size,)}
    given = {"hidden": hidden_MH, "weight": weight_VH, "bias": bias_V}
    for name, tensor in given.items():
        if tuple(tensor.shape) != expected[name]:
            raise ValueError(f"{name} must be {expected[name]}, got {tuple(tensor.shape)}")
        if tensor.dtype != hidden_MH.dtype or not tensor.dtype.is_floating_point:
            raise ValueError(
                f"{name} is {tensor.dtype}; all three must be of one floating type, and hidden "
                f"is {hidden_MH.dtype}"
            )
    if labels_M.dtype != torch.int64:
        raise ValueError(f"labels must be int64, got {labels_M.dtype}")
    if len({tensor.device for tensor in (*given.values(), labels_M)}) > 1:
        raise ValueError("hidden, weight, bias and labels must be on one device")
