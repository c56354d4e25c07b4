"""onnx and onnxruntime: an extra of this package, imported here and nowhere else."""

from __future__ import annotations

import importlib
import importlib.util
from typing import Any

from magicbert.errors import UserError

# onnxscript is what torch.onnx writes graphs with.
PACKAGES = ("onnx", "onnxscript", "onnxruntime")


def require_onnx() -> None:
    """Raises `UserError` if a package that an export to ONNX needs is not installed."""
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(
            f"ONNX: {', '.join(missing)} not installed here; install the extra, "
            "`pip install 'magicbert[onnx]'`, or leave onnx.enabled off"
        )


def runtime() -> Any:
    """Returns the package onnxruntime."""
    require_onnx()
    return importlib.import_module("onnxruntime")


def quantization() -> Any:
    """Returns onnxruntime's package for quantisation."""
    require_onnx()
    return importlib.import_module("onnxruntime.quantization")
