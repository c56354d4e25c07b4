"""What autograd keeps of a forward until the backward, counted on tensors without memory."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


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


def peak_bytes(forward: Callable[[], Any]) -> int:
    """Returns the most bytes that a forward holds at one time of what it allocates itself.

    Args:
        forward: computes something; on the meta device that takes no memory and little time.
    """
    living = LivingStorages()
    with living:
        output = forward()
    del output
    return living.most


class LivingStorages(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Follows the storages that operations make, from their birth to their end."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.sizes: dict[int, int] = {}
        self.now = self.most = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Calls the operation and notes what is new in its result."""
        known = {storage_key(tensor) for tensor in tensors_in((args, kwargs))}
        result = func(*args, **(kwargs or {}))
        for tensor in tensors_in(result):
            key = storage_key(tensor)
            if key not in known and key not in self.sizes:
                storage = tensor.untyped_storage()
                self.sizes[key] = storage.nbytes()
                self.now += storage.nbytes()
                self.most = max(self.most, self.now)
                weakref.finalize(storage, self.forget, key)
        return result

    def forget(self, key: int) -> None:
        """Takes off a storage that nothing holds any more."""
        self.now -= self.sizes.pop(key)


def tensors_in(tree: Any) -> Iterator[Tensor]:
    """Yields the tensors among arguments or results."""
    return (leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor))


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
