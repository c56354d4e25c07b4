"""Other people's kernels, found by what they offer: nothing here is needed to run magicbert."""

from __future__ import annotations

import importlib
import importlib.util
import sys
import types
from pathlib import Path
from typing import Any

import torch

from magicbert.bench.registry import AbsentError

NEEDS_GPU = "runs on a GPU only"


def offered(module: str, symbol: str, device: torch.device) -> Any:
    """Returns what a package offers under a name.

    Args:
        module: to import, such as ``liger_kernel.ops.layer_norm``.
        symbol: the name in it.
        device: where it must run; all of these run on GPUs only.

    Raises:
        AbsentError: it is not installed, or lacks the name, or this is no GPU.
    """
    package = module.partition(".")[0]
    if importlib.util.find_spec(package) is None:
        raise AbsentError("not installed")
    require_gpu(device)
    try:
        return getattr(importlib.import_module(module), symbol)
    except (ImportError, AttributeError, RuntimeError, OSError) as error:
        raise AbsentError(f"installed, but {module}.{symbol} is missing: {error}") from error


def require_gpu(device: torch.device) -> None:
    """Raises `AbsentError` on anything else."""
    if device.type != "cuda":
        raise AbsentError(NEEDS_GPU)


def apex_layer_norm(device: torch.device) -> Any:
    """Returns apex's fused layer norm; apex may be installed without its CUDA extension."""
    offered("fused_layer_norm_cuda", "forward_affine", device)
    return offered("apex.normalization.fused_layer_norm", "fused_layer_norm_affine", device)


def flash_layer_norm(device: torch.device, file: str) -> Any:
    """Returns flash-attention's ``layer_norm_fn``, which is Triton and needs no build.

    The package itself needs a CUDA extension to be imported. Its folder is enough for this file: a
    stand-in for the package finds what the file imports, and runs nothing else.

    Args:
        device: where it must run.
        file: its path, or empty to look for an installed package.
    """
    path = Path(file) if file else installed_layer_norm()
    if not path.is_file():
        raise AbsentError("no such file" if file else "not installed")
    require_gpu(device)
    package = path.resolve().parents[2]
    former = sys.modules.get("flash_attn")
    stand_in = types.ModuleType("flash_attn")
    stand_in.__path__ = [str(package)]
    sys.modules["flash_attn"] = stand_in
    try:
        return importlib.import_module("flash_attn.ops.triton.layer_norm").layer_norm_fn
    except (ImportError, AttributeError) as error:
        raise AbsentError(f"cannot be loaded: {error}") from error
    finally:
        if former is not None:
            sys.modules["flash_attn"] = former
        else:
            del sys.modules["flash_attn"]


def installed_layer_norm() -> Path:
    """Returns where the file is in an installed package, if there is one."""
    found = importlib.util.find_spec("flash_attn")
    folders = found.submodule_search_locations if found is not None else None
    return Path(folders[0] if folders else "") / "ops" / "triton" / "layer_norm.py"
