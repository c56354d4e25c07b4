"""Whether a device multiplies bf16 numbers in hardware, by what it says it can do."""

from __future__ import annotations

from collections.abc import Mapping

import torch

# Instruction sets with bf16 products, as torch names them.
CPU_CAPABILITIES = ("avx512_bf16", "amx_bf16", "bf16")


def has_native_bf16(device: torch.device) -> bool:
    """Returns whether bf16 is faster than fp32 there, and not computed by way of fp32.

    A CPU without it computes the same numbers, slowly: whole training runs there in bf16 as well.
    """
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type != "cpu":
        return False
    return any(cpu_capabilities().get(name, False) for name in CPU_CAPABILITIES)


def cpu_capabilities() -> Mapping[str, object]:
    """Returns what torch knows of this processor; older versions tell less."""
    if hasattr(torch.cpu, "get_capabilities"):
        return dict(torch.cpu.get_capabilities())
    return {"avx512_bf16": torch.cpu._is_avx512_bf16_supported()}
