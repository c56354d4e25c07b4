"""Dropout on a CPU: four decisions from one 64-bit draw.

PyTorch draws a Bernoulli variable per element, which on a CPU costs more than most of what stands
around it. Here torch's generator fills words of 64 bits, each read as four signed 16-bit numbers;
an element is kept where its number reaches a threshold. So the probability is a multiple of
1/65536, and the kept elements are scaled by what it really is. Draws come from torch's default
generator:
``torch.manual_seed`` repeats them, and so does recomputation under its restored state.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

DECISIONS_PER_WORD = 4
NUM_LEVELS = 1 << 16
LOWEST = -(1 << 15)


def host_dropout(values: Tensor, p: float) -> Tensor:
    """Returns ``values`` with a share ``p`` of them set to 0, the others scaled up.

    Args:
        values: on the CPU, of any floating type.
        p: 0 <= p < 1, rounded to a multiple of 1/65536.

    Raises:
        ValueError: ``values`` is elsewhere, or ``p`` is outside its range.
    """
    check(values, p)
    return cast(Tensor, HostDropout.apply(values, p))  # type: ignore[no-untyped-call]


def add_host_dropout(residual: Tensor, branch: Tensor, p: float) -> Tensor:
    """Returns ``residual + host_dropout(branch, p)`` in one pass; both have one shape and type.

    Raises:
        ValueError: the branch is not on the CPU, or ``p`` is outside its range.
    """
    check(branch, p)
    result = AddHostDropout.apply(residual, branch, p)  # type: ignore[no-untyped-call]
    return cast(Tensor, result)


def keep_factors(values: Tensor, p: float) -> Tensor:
    """Returns what to multiply ``values`` by: 0 or 1 / (share kept); contiguous, of their type."""
    num_elements = values.numel()
    num_words = -(-num_elements // DECISIONS_PER_WORD)
    words = torch.empty(num_words, dtype=torch.int64).random_(torch.iinfo(torch.int64).min, None)
    numbers = words.view(torch.int16)[:num_elements].view(values.shape)
    num_dropped = round(p * NUM_LEVELS)
    factors = torch.empty(values.shape, dtype=values.dtype)
    # The comparison writes floats itself: booleans would be a pass more, and a slow one.
    torch.ge(numbers, LOWEST + num_dropped, out=factors)
    return factors.mul_(NUM_LEVELS / (NUM_LEVELS - num_dropped))


def check(values: Tensor, p: float) -> None:
    """Raises ``ValueError`` unless the values are on the CPU and some of them would be kept."""
    if values.device.type != "cpu":
        raise ValueError(f"this dropout is for the CPU, the values are on {values.device}")
    if not 0.0 <= p <= (NUM_LEVELS - 1) / NUM_LEVELS:
        raise ValueError(f"dropout must be at least 0 and below 1, got {p}")


class HostDropout(torch.autograd.Function):
    """Keeps the factors for the backward."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, p: float) -> Tensor:
        """Multiplies by fresh factors."""
        factors = keep_factors(values, p)
        ctx.save_for_backward(factors)
        return values * factors

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        """Multiplies by the same factors."""
        (factors,) = ctx.saved_tensors
        return gradients[0] * factors, None


class AddHostDropout(torch.autograd.Function):
    """Keeps the factors for the backward; the residual's gradient is the result's, untouched."""

    @staticmethod
    def forward(ctx: Any, residual: Tensor, branch: Tensor, p: float) -> Tensor:
        """Multiplies and adds in one pass."""
        factors = keep_factors(branch, p)
        ctx.save_for_backward(factors)
        return torch.addcmul(residual, branch, factors)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None]:
        """Multiplies the branch's share by the same factors."""
        (factors,) = ctx.saved_tensors
        return gradients[0], gradients[0] * factors, None
