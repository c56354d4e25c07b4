"""Finds what would make a host wait for its GPU.

On a CPU nothing ever waits, so what would wait on a GPU is forbidden by name: operators whose
result the host reads, or whose size depends on values.
"""

from __future__ import annotations

from contextlib import contextmanager

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

WAITING = {
    "_local_scalar_dense", "is_nonzero", "equal", "nonzero", "nonzero_numpy", "masked_select",
    "unique", "_unique", "_unique2", "unique_consecutive", "unique_dim", "bincount",
    "repeat_interleave",
}  # fmt: skip


class NoWaiting(TorchDispatchMode):
    """Fails where a GPU would have to be waited for."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        assert name not in WAITING, f"{func} makes the host wait for the device"
        if name == "index":  # a mask as an index is a nonzero in disguise
            assert all(i is None or i.dtype != torch.bool for i in args[1]), func
        return func(*args, **(kwargs or {}))


class NoReading(TorchFunctionMode):
    """Fails where values are read without any operator."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        name = getattr(func, "__name__", "")
        assert name not in {"tolist", "numpy", "cpu", "item"}, f"{name} waits for the device"
        return func(*args, **(kwargs or {}))


@contextmanager
def no_waiting():
    with NoReading(), NoWaiting():
        yield
