"""Rows times the matrix of their operator: one grouped product where a library has it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from magicbert_kernels.mixed_operators.operator_rows import OperatorRows

# The library's kernel reads its operands in units of 16 bytes.
UNIT_BYTES = 16


def grouped_linear(
    hidden_RSK: Tensor, weights_NK: Sequence[Tensor], operators: OperatorRows
) -> Tensor:
    """Returns ``hidden @ weight.T`` ``[R, S, N]`` with the weight of each row's operator.

    Under autocast the product is taken, and returned, in autocast's type.

    Args:
        hidden_RSK: rows sorted by operator.
        weights_NK: one matrix per operator, all of one shape.
        operators: of the rows.
    """
    device_type = hidden_RSK.device.type
    dtype = hidden_RSK.dtype
    if torch.is_autocast_enabled(device_type):
        dtype = torch.get_autocast_dtype(device_type)
    hidden_RSK = hidden_RSK.to(dtype)
    weights_NK = [weight.to(dtype) for weight in weights_NK]
    if takes_grouped_product(hidden_RSK, weights_NK[0]):
        return grouped_product(hidden_RSK, weights_NK, operators)
    return product_by_product(hidden_RSK, weights_NK, operators)


def takes_grouped_product(hidden_RSK: Tensor, weight_NK: Tensor) -> bool:
    """Returns whether torch's grouped product is there, and made for this device, type and size.

    Elsewhere torch has at most a loop behind that name.
    """
    if not hidden_RSK.is_cuda or hidden_RSK.dtype != torch.bfloat16 or library_product() is None:
        return False
    # Before it stood in torch.nn.functional it ran on compute capability 9.0 and above.
    lowest = (8, 0) if hasattr(F, "grouped_mm") else (9, 0)
    are_whole_units = all(
        size * hidden_RSK.element_size() % UNIT_BYTES == 0 for size in weight_NK.shape
    )
    return are_whole_units and torch.cuda.get_device_capability(hidden_RSK.device) >= lowest


def library_product() -> Callable[..., Tensor] | None:
    """Returns torch's grouped product under the name that this version has for it."""
    return getattr(F, "grouped_mm", None) or getattr(torch, "_grouped_mm", None)


def grouped_product(
    hidden_RSK: Tensor, weights_NK: Sequence[Tensor], operators: OperatorRows
) -> Tensor:
    """Returns `grouped_linear` by the library; the matrices are copied side by side first.

    The copy moves two times the matrices, which is little against the hidden states unless the
    batch has fewer tokens than the matrices have rows.
    """
    product = library_product()
    assert product is not None
    weights_GKN = torch.stack(list(weights_NK)).transpose(1, 2)
    ends = (operators.ends * hidden_RSK.shape[1]).to(torch.int32)
    output = product(hidden_RSK.flatten(0, 1), weights_GKN, offs=ends)
    return output.view(*hidden_RSK.shape[:2], -1)


def product_by_product(
    hidden_RSK: Tensor, weights_NK: Sequence[Tensor], operators: OperatorRows
) -> Tensor:
    """Returns `grouped_linear` by one product per operator that has rows."""
    pairs = zip(operators.split(hidden_RSK), weights_NK, strict=True)
    return torch.cat([F.linear(part, weight) for part, weight in pairs])
