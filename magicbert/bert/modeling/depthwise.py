"""Depthwise convolution over positions that never crosses a segment.

A depthwise convolution is a sum of a few shifted products. In the encoder's own layout
``[B, S, H]`` this needs no transposes, accumulates in place, and makes the limits of a segment one
more factor per shift.

Shape suffixes: B rows, S positions, H channels, K taps of the kernel.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from .fused import depthwise, runs_kernels
from .image_convolution import convolve_rows, suits_library
from .initialization import convolution_std
from .segments import Segments

# Of the filters that the Triton kernel is for; any other odd size runs in plain torch.
KERNEL_SIZES = (3, 5, 7)


class ShiftedProducts(torch.autograd.Function):
    """``y[s] = bias + sum_j weight[j] * x[s + j - K // 2]`` within each segment.

    Positions outside the row or the segment count as zero. Rows, weights and bias may have one
    more axis in front, of as many models; their rows are then the segments', model by model.
    """

    @staticmethod
    def forward(
        ctx: Any, input_BSH: Tensor, weight_KH: Tensor, bias_H: Tensor, segments: Segments
    ) -> Tensor:
        """Returns the convolution; same shape and type as the input."""
        ctx.save_for_backward(input_BSH, weight_KH)
        ctx.segments = segments
        return shifted_products(input_BSH, weight_KH, bias_H, segments)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        """Runs the shifts the other way round."""
        input_BSH, weight_KH = ctx.saved_tensors
        (grad_BSH,) = gradients
        length, middle = input_BSH.shape[-2], weight_KH.shape[-2] // 2
        grad_input_BSH = grad_BSH * _tap(weight_KH, middle)
        grad_weight_KH = torch.empty_like(weight_KH)
        grad_weight_KH[..., middle, :] = (grad_BSH * input_BSH).sum((-3, -2))
        for offset in range(1, min(middle, length - 1) + 1):
            link, number = _linked(ctx.segments, offset, grad_BSH), length - offset
            for sign in (-1, 1):
                here, there = _pair(offset, sign)
                grad = grad_BSH.narrow(-2, here, number)
                grad = grad if link is None else grad * link
                tap = middle + sign * offset
                grad_input_BSH.narrow(-2, there, number).addcmul_(grad, _tap(weight_KH, tap))
                seen = input_BSH.narrow(-2, there, number)
                grad_weight_KH[..., tap, :] = (grad * seen).sum((-3, -2))
        _clear_unused_taps(grad_weight_KH, length)
        return grad_input_BSH, grad_weight_KH, grad_BSH.sum((-3, -2)), None


def shifted_products(
    input_BSH: Tensor, weight_KH: Tensor, bias_H: Tensor, segments: Segments
) -> Tensor:
    """Computes the convolution of `ShiftedProducts` without recording it for a gradient."""
    length, middle = input_BSH.shape[-2], weight_KH.shape[-2] // 2
    output_BSH = torch.addcmul(_tap(bias_H.unsqueeze(-2), 0), input_BSH, _tap(weight_KH, middle))
    for offset in range(1, min(middle, length - 1) + 1):
        link, number = _linked(segments, offset, input_BSH), length - offset
        for sign in (-1, 1):
            here, there = _pair(offset, sign)
            seen = input_BSH.narrow(-2, there, number)
            seen = seen if link is None else seen * link
            tap_H = _tap(weight_KH, middle + sign * offset)
            output_BSH.narrow(-2, here, number).addcmul_(seen, tap_H)
    return output_BSH


def _tap(weight_KH: Tensor, tap: int) -> Tensor:
    """Returns one tap of the filters, ready to be multiplied with rows."""
    tap_H = weight_KH.select(-2, tap)
    return tap_H if weight_KH.ndim == 2 else tap_H[..., None, None, :]


def _linked(segments: Segments, offset: int, rows_BSH: Tensor) -> Tensor | None:
    """Returns `Segments.linked` with the leading axes of the rows."""
    link = segments.linked(offset, rows_BSH.dtype)
    if link is None or rows_BSH.ndim == link.ndim:
        return link
    return link.view(*rows_BSH.shape[:-2], -1, 1)


def _pair(offset: int, sign: int) -> tuple[int, int]:
    """Returns the first position that looks, and the one ``sign * offset`` further it looks at."""
    return (0, offset) if sign > 0 else (offset, 0)


def _clear_unused_taps(grad_weight_KH: Tensor, length: int) -> None:
    """Taps that reach past a very short row saw nothing: their gradient is zero."""
    unused = grad_weight_KH.shape[-2] // 2 - (length - 1)
    if unused > 0:
        grad_weight_KH[..., :unused, :] = 0
        grad_weight_KH[..., -unused:, :] = 0


class DepthwiseConvolution(nn.Module):
    """One filter of ``kernel_size`` taps per channel, with bias.

    Args:
        channels: H.
        kernel_size: K, odd.
        dropout: of the operator; enters the scale of the initial weights only.
        backend: which kernels to use, as the configuration says.
    """

    def __init__(
        self, channels: int, kernel_size: int, dropout: float, backend: str = "auto"
    ) -> None:
        super().__init__()
        self.backend = backend
        self.std = convolution_std(kernel_size, channels, dropout)
        self.weight = nn.Parameter(torch.empty(kernel_size, channels))
        self.bias = nn.Parameter(torch.empty(channels))
        self.initialize(self.std)

    def initialize(self, std: float) -> None:
        """Fills the weights; ``std`` is not used."""
        nn.init.normal_(self.weight, std=self.std)
        nn.init.zeros_(self.bias)

    def forward(self, hidden_BSH: Tensor, segments: Segments) -> Tensor:
        """Returns the convolution within each segment; padded positions count as zeros."""
        weight_KH = self.weight.to(hidden_BSH.dtype)
        bias_H = self.bias.to(hidden_BSH.dtype)
        if len(weight_KH) in KERNEL_SIZES and runs_kernels(self.backend, hidden_BSH):
            return depthwise(hidden_BSH, weight_KH, bias_H, segments.ids)
        hidden_BSH = segments.hide_padding(hidden_BSH)
        if suits_library(hidden_BSH, segments):
            return convolve_rows(hidden_BSH, weight_KH, bias_H)
        if not torch.is_grad_enabled():
            return shifted_products(hidden_BSH, weight_KH, bias_H, segments)
        return cast(
            Tensor,
            ShiftedProducts.apply(  # type: ignore[no-untyped-call]
                hidden_BSH, weight_KH, bias_H, segments
            ),
        )
