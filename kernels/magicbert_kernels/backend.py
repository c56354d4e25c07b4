"""Which implementation runs: chosen by name, once per device, and logged."""

from __future__ import annotations

import functools
import importlib.util
import logging
import os
from typing import Literal, cast

import torch

Backend = Literal["triton", "torch"]
BACKENDS = ("auto", "triton", "torch")
LOGGER = logging.getLogger("magicbert.kernels")


class BackendError(RuntimeError):
    """The backend that was asked for by name does not exist or cannot run on the device."""


def resolve_backend(requested: str, device: torch.device) -> Backend:
    """Returns the backend for tensors of a device; the first answer per device is logged.

    Args:
        requested: ``triton`` and ``torch`` are taken literally; ``auto`` is triton on CUDA and ROCm
            devices where triton is installed, torch elsewhere.
        device: where the tensors are.

    Raises:
        BackendError: unknown name, or triton where it cannot run.
    """
    return _resolve(requested, device.type)


@functools.cache
def _resolve(requested: str, device_type: str) -> Backend:
    if requested not in BACKENDS:
        raise BackendError(f"must be one of {', '.join(BACKENDS)}, got {requested!r}")
    is_installed = importlib.util.find_spec("triton") is not None
    if requested == "triton":
        if not is_installed:
            raise BackendError("triton is not installed: use auto or torch")
        if device_type != "cuda" and not is_interpreted():
            raise BackendError(
                f"triton does not run on {device_type!r} tensors: use auto or torch "
                "(for tests, set TRITON_INTERPRET=1 before Python starts)"
            )
    chosen = requested
    if requested == "auto":
        chosen = "triton" if device_type == "cuda" and is_installed else "torch"
    LOGGER.info("kernels: backend %s on %s (requested: %s)", chosen, device_type, requested)
    return cast(Backend, chosen)


def is_interpreted() -> bool:
    """Returns whether Triton kernels run in its interpreter, on CPU tensors."""
    return os.environ.get("TRITON_INTERPRET", "0") == "1"
