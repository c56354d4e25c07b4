"""Combinations that DeepSpeed offers and that are not exact here: refused before anything runs."""

from __future__ import annotations

from typing import Any

from magicbert.errors import UserError

# Setting of ``zero_optimization`` -> (value that is fine, why another is not).
REFUSED: dict[str, tuple[Any, str]] = {
    "offload_param": (None, "weights are gathered from device memory only"),
    "zero_hpz_partition_size": (1, "secondary partitions are not kept in step with the path"),
    "zero_quantized_weights": (False, "gathered weights would not be those of the masters"),
    "zero_quantized_gradients": (False, "gradients would not be those of the path"),
    "zero_quantized_nontrainable_weights": (False, "no weight is frozen here"),
    "zenflow": (None, "it updates parts of a gradient at different times"),
}


def check_zero_config(zero: Any) -> None:
    """Refuses settings that would run wrong.

    Args:
        zero: DeepSpeed's typed ``zero_optimization`` section.

    Raises:
        UserError: names the setting and the reason.
    """
    for name, (fine, reason) in REFUSED.items():
        value = getattr(zero, name, fine)
        if value != fine and getattr(value, "device", "") != "none":
            raise UserError(f"zero_optimization.{name}: not available path-sparse: {reason}")
    offload = zero.offload_optimizer
    if offload is not None and offload.device == "nvme":
        raise UserError(
            "zero_optimization.offload_optimizer: only host memory (cpu) is available path-sparse; "
            "the swapping of masters to NVMe was not proven to leave unsampled operators alone"
        )
    if offload is not None and offload.device != "none" and offload.ratio != 1.0:
        raise UserError("zero_optimization.offload_optimizer.ratio: must be 1.0 path-sparse")
