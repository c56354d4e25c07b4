"""What autograd keeps of a forward until the backward, counted on tensors without memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode


def kept_bytes(forward: Callable[[], Any], weights: Iterable[Tensor]) -> int:
    """Returns the bytes that a forward leaves behind for its backward.

    A storage that several operations keep counts once. The tensors may be on the meta device,
    where a forward takes no memory and little time.

    Args:
        forward: computes something that requires a gradient.
        weights: tensors that are there anyway, such as parameters; they are not counted.
    """
    known = {storage_key(weight) for weight in weights}
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        if storage_key(tensor) not in known:
            kept[storage_key(tensor)] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        output = forward()
    total = sum(tensor.untyped_storage().nbytes() for tensor in kept.values())
    del output
    return total


def storage_key(tensor: Tensor) -> int:
    """Returns what tells storages apart, also those without memory; valid while both live."""
    return int(tensor.untyped_storage()._cdata)


class FusedKernels(TorchFunctionMode):
    """Lets attention and dropout keep what fused kernels keep; for tensors without memory.

    Unfused, as on the meta device, attention keeps its ``length x length`` weights, and dropout
    keeps a factor per value in the values' own type.

    Args:
        attention: what stands in for attention.
        dropout: replace dropout.
    """

    def __init__(self, *, attention: Callable[..., Tensor], dropout: bool) -> None:
        super().__init__()
        self.replaced: dict[Any, Callable[..., Tensor]] = {
            F.scaled_dot_product_attention: attention
        }
        if dropout:
            self.replaced[F.dropout] = fused_dropout

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Calls the stand-in of a function that has one."""
        return self.replaced.get(func, func)(*args, **(kwargs or {}))


def fused_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
) -> Tensor:
    """Stands in for attention kernels that never write their weights out."""
    result: Tensor = FusedAttention.apply(query, key, value, attn_mask)  # type: ignore[no-untyped-call]
    return result


def fused_dropout(
    input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False
) -> Tensor:
    """Stands in for dropout that keeps one byte per value."""
    if not training or p == 0.0:
        return input
    result: Tensor = FusedDropout.apply(input)  # type: ignore[no-untyped-call]
    return result


class FusedAttention(torch.autograd.Function):
    """Keeps queries, keys, values, mask, result and the logarithm of each query's sum."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        """Returns a tensor of the result's shape and layout, ``[B, heads, length, width]``."""
        # Kernels lay the result out as [B, length, heads, width].
        result = torch.empty_like(query.transpose(1, 2).contiguous()).transpose(1, 2)
        sums = query.new_empty(query.shape[:-1], dtype=torch.float32)
        ctx.save_for_backward(query, key, value, mask, result, sums)
        return result

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        """Is not there: a plan runs no backward."""
        raise NotImplementedError


class FusedDropout(torch.autograd.Function):
    """Keeps a mask of one byte per value."""

    @staticmethod
    def forward(ctx: Any, input: Tensor) -> Tensor:
        """Returns a tensor of the input's shape."""
        ctx.save_for_backward(torch.empty_like(input, dtype=torch.bool))
        return torch.empty_like(input)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        """Is not there: a plan runs no backward."""
        raise NotImplementedError
