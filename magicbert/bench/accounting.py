"""Counts what a piece of code does to memory and to the wire, without a clock.

Every operator that torch dispatches in this thread is seen, collectives among them, whoever called
it: the figures are exact and repeat.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

# Operators that touch no values: they allocate, or hand out what is there.
FREE = {
    "alias", "detach", "empty", "empty_like", "empty_strided", "lift_fresh", "new_empty", "set_",
    "_local_scalar_dense",
}  # fmt: skip
# Operators that take of a tensor only its shape.
SHAPED_LIKE = {"full_like", "new_full", "new_ones", "new_zeros", "ones_like", "zeros_like"}
OVERWRITING = ("copy_", "zero_", "fill_")
SCALED_IN_PLACE = "_fused_adam"


class Accounting(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts while it is entered.

    A tensor that an operator reads counts once, one it writes counts once, one it changes in
    place counts twice. What collectives read and write is not memory traffic here: they are
    counted apart, by the size of what this rank puts in.

    Attributes:
        bytes_touched: bytes read and written.
        num_operators: operators that touched values.
        collectives: how often each collective was called, by its name in ``torch.ops.c10d``.
        collective_bytes: what this rank put into them.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.bytes_touched = 0
        self.num_operators = 0
        self.collectives: Counter[str] = Counter()
        self.collective_bytes: Counter[str] = Counter()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Runs an operator and counts it."""
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        namespace, name = func._schema.name.split("::")
        if namespace == "c10d":
            self.collectives[name] += 1
            self.collective_bytes[name] += put_in(func, args)
        elif not func.is_view and name not in FREE:
            self.num_operators += 1
            self.bytes_touched += touched(func, args, kwargs, result)
        return result

    def summary(self) -> dict[str, Any]:
        """Returns all counts as JSON data."""
        return {
            "bytes_touched": self.bytes_touched,
            "collectives": dict(sorted(self.collectives.items())),
            "collective_bytes": dict(sorted(self.collective_bytes.items())),
        }


def touched(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> int:
    """Returns the bytes that one call of an operator read and wrote."""
    total = sum(map(size_of, tensors_in(result)))
    if func._schema.name.split("::")[1] in SHAPED_LIKE:
        return total
    is_overwriting = func._schema.name.endswith(OVERWRITING)
    given = [*args, *(kwargs.get(a.name) for a in func._schema.arguments[len(args) :])]
    for argument, value in zip(func._schema.arguments, given, strict=True):
        size = sum(map(size_of, tensors_in(value)))
        is_written = argument.alias_info is not None and argument.alias_info.is_write
        if argument.name == "grads" and SCALED_IN_PLACE in func._schema.name:
            # The schema allows for it, but only a scaled gradient is written back.
            is_written = kwargs.get("grad_scale") is not None
        if is_written and value is result:
            total -= size  # an in-place operator returns its target
        total += size if not is_written or is_overwriting else 2 * size
    return total


def put_in(func: Any, args: tuple[Any, ...]) -> int:
    """Returns the bytes this rank contributes to a collective."""
    by_name = {a.name: value for a, value in zip(func._schema.arguments, args, strict=False)}
    for name in ("input_tensors", "input_tensor", "inputs", "input", "tensors"):
        if name in by_name:
            return sum(map(size_of, tensors_in(by_name[name])))
    return 0


def tensors_in(value: Any) -> Iterator[Tensor]:
    """Yields the tensors of nested lists and tuples."""
    return (item for item in tree_flatten(value)[0] if isinstance(item, Tensor))


def size_of(tensor: Tensor) -> int:
    """Returns the bytes of a tensor's values."""
    return tensor.numel() * tensor.element_size()
