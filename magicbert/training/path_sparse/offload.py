"""Masters and moments in host memory: gradients of the path go there, its weights come back.

DeepSpeed's own offload cannot be used. It keeps one gradient buffer per group on the host,
allocated once and never cleared, and copies into it the parameters that had a gradient; its step
then walks over every group, so an operator that was not sampled is stepped with the last gradient
it ever had (the tests show it on the stock policy). What is kept is its configuration
(``zero_optimization.offload_optimizer``) and its placement: this rank's fp32 partition and its
moments, in host memory, pinned where the accelerator can use that.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from deepspeed.accelerator import get_accelerator
from torch import Tensor


class HostMemory:
    """Pinned buffers through which a step's gradients and weights travel.

    Each is as large as the largest path so far, and is used anew at every step. On a machine
    whose accelerator is the CPU nothing is pinned and copies are plain.

    Args:
        weight_dtype: precision of the model's weights.
    """

    def __init__(self, weight_dtype: torch.dtype) -> None:
        self._gradients = torch.empty(0, dtype=torch.float32)
        self._weights = torch.empty(0, dtype=weight_dtype)

    @staticmethod
    def pinned(value: Tensor) -> Tensor:
        """Returns a copy of a tensor in pinned host memory."""
        copied: Tensor = get_accelerator().pin_memory(value.detach().to("cpu", copy=True))
        return copied

    def fetch_gradients(self, gradients: Sequence[Tensor]) -> list[Tensor]:
        """Returns copies on the host; they are there when this returns."""
        sizes = [gradient.numel() for gradient in gradients]
        self._gradients = _at_least(self._gradients, sum(sizes))
        landed = list(torch.split(self._gradients[: sum(sizes)], sizes))
        torch._foreach_copy_(landed, list(gradients), non_blocking=True)
        # The host computes on them next. This also ends the copies of the step before, so the
        # buffer of weights is free again.
        get_accelerator().synchronize()
        return landed

    def send_weights(self, masters: Sequence[Tensor], targets: Sequence[Tensor]) -> None:
        """Copies masters into weights on the device, cast on the host (half the traffic).

        The device may still be copying when this returns; its later work waits for it.
        """
        if self._weights.dtype == torch.float32:  # the masters are pinned themselves
            torch._foreach_copy_(list(targets), list(masters), non_blocking=True)
            return
        sizes = [master.numel() for master in masters]
        self._weights = _at_least(self._weights, sum(sizes))
        staged = list(torch.split(self._weights[: sum(sizes)], sizes))
        torch._foreach_copy_(staged, list(masters))
        torch._foreach_copy_(list(targets), staged, non_blocking=True)


def _at_least(buffer: Tensor, length: int) -> Tensor:
    """Returns the buffer, or a longer one of its kind."""
    if buffer.numel() >= length:
        return buffer
    get_accelerator().synchronize()  # no copy from the old one may be under way
    longer: Tensor = get_accelerator().pin_memory(torch.empty(length, dtype=buffer.dtype))
    return longer
