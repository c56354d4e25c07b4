"""``training.compile``: every kind of operator compiled once, for all layers and all paths.

A whole path cannot be compiled: each step brings another one. An operator can. Compiled code takes
the weights as inputs, so the layers share it: what is compiled grows with the number of different
operators, not with that of layers or paths, and a run meets nothing new once each has been seen.
"""

from __future__ import annotations

import inspect
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FunctionType, MethodType
from typing import Any

import torch
from torch import nn

from magicbert.errors import UserError
from magicbert.supernet.supernet import Supernet

# Of one operator: training and evaluation, rows that are full, padded, packed or both. Beyond
# the limit, 8 as torch comes, code would silently run as if it had not been compiled.
MOST_VARIANTS = 32
COMPILERS = ("g++", "clang++", "c++")


@contextmanager
def compiled_operators(supernet: Supernet, backend: str = "inductor") -> Iterator[None]:
    """Runs the operators' forwards as compiled code inside the block.

    Hooks, names and states of the modules stay what they are. Code is compiled at an operator's
    first call, and again for another shape or kind of batch.

    Args:
        supernet: its operators, all that it will run.
        backend: of `torch.compile`.
    """
    settings = torch._dynamo.config
    settings.recompile_limit = max(settings.recompile_limit, MOST_VARIANTS)
    shared: dict[tuple[type[nn.Module], str], Callable[..., Any]] = {}
    operators = [(name, op) for layer in supernet.layers for name, op in layer.items()]  # type: ignore[operator]
    for name, operator in operators:
        kind = (type(operator), name)
        if kind not in shared:
            own = with_code_of_its_own(type(operator).forward, name)
            shared[kind] = torch.compile(own, backend=backend)
        operator.forward = MethodType(shared[kind], operator)
    try:
        yield
    finally:
        for _, operator in operators:
            del operator.forward


def with_code_of_its_own(function: Callable[..., Any], name: str) -> Callable[..., Any]:
    """Returns a copy of a function, named after an operator.

    Compiled code hangs on a function's code. ``conv3`` and ``conv5`` share a class: with one code
    they would look through each other's variants at every call, under one limit.
    """
    if not inspect.isfunction(function):
        return function
    code = function.__code__.replace(co_name=f"{function.__name__}_{name}")
    copy = FunctionType(
        code, function.__globals__, function.__name__, function.__defaults__, function.__closure__
    )
    copy.__kwdefaults__ = function.__kwdefaults__
    return copy


def check_compiler(device: torch.device) -> None:
    """Refuses ``training.compile`` where there is nothing to compile with.

    Raises:
        UserError: a CPU's code needs a C++ compiler, and none was found.
    """
    candidates = [name for name in (os.environ.get("CXX"), *COMPILERS) if name]
    if device.type == "cpu" and not any(map(shutil.which, candidates)):
        raise UserError(
            f"training.compile: no C++ compiler found (looked for {', '.join(candidates)}): "
            "install one, name it in CXX, or set training.compile to false"
        )
