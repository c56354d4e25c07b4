"""torch.compile as a peer: the plain form of an operation, compiled for its sizes."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Callable

import torch
from torch._functorch import config as functorch

from magicbert.bench.kernels.operation import Function
from magicbert.bench.registry import AbsentError


def compiled(function: Function, device: torch.device) -> Callable[[], Function]:
    """Returns what compiles a function for fixed sizes; absent where there is no compiler."""

    def make() -> Function:
        if device.type == "cpu" and not any(map(shutil.which, ("g++", "clang++", "c++"))):
            raise AbsentError("no C++ compiler")
        if device.type == "cuda" and importlib.util.find_spec("triton") is None:
            raise AbsentError("triton is not installed")
        # A backward that is timed alone runs more than once on what its forward saved.
        functorch.donated_buffer = False
        return torch.compile(function, dynamic=False)

    return make
