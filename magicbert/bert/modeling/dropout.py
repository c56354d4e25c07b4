"""Dropout where the encoder runs in plain torch, fast on a CPU.

On a CPU torch's dropout costs more than the rest of an operator's elementwise work; the package
``magicbert_kernels``, where it is installed, has one that draws less. Compiled code fuses its own.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

try:
    from magicbert_kernels.host_dropout import add_host_dropout, host_dropout

    HAS_HOST_DROPOUT = True
except ImportError:
    HAS_HOST_DROPOUT = False


class Dropout(nn.Dropout):
    """``nn.Dropout`` by way of `dropped`."""

    def forward(self, input: Tensor) -> Tensor:
        """Drops while training."""
        return dropped(input, self.p if self.training else 0.0)


def drops_on_host(values: Tensor, probability: float) -> bool:
    """Returns whether the dropout for CPUs is to be used."""
    is_eager_cpu = values.device.type == "cpu" and not torch.compiler.is_compiling()
    return HAS_HOST_DROPOUT and is_eager_cpu and 0.0 < probability < 1.0


def dropped(values: Tensor, probability: float) -> Tensor:
    """Returns ``values`` with each element zeroed with a probability, the others scaled up."""
    if drops_on_host(values, probability):
        return host_dropout(values, probability)
    return F.dropout(values, probability, training=True) if probability else values


def add_dropped(residual: Tensor, branch: Tensor, probability: float) -> Tensor:
    """Returns ``residual + dropped(branch, probability)``."""
    if drops_on_host(branch, probability) and residual.dtype == branch.dtype:
        return add_host_dropout(residual, branch, probability)
    return residual + dropped(branch, probability)
