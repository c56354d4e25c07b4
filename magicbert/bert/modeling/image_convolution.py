"""The depthwise convolution of rows that are one segment each, on a CPU.

In memory, rows ``[B, S, H]`` are images of height 1 with their channels last, which is the layout
of oneDNN's depthwise kernels. So the library convolves the rows where they lie; ``F.conv1d`` would
copy them into another layout and back.

Shape suffixes: B rows, S positions, H channels, K taps of the kernel.
"""

from __future__ import annotations

from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from .segments import Segments

HAS_LIBRARY = bool(torch.backends.mkldnn.is_available())  # type: ignore[no-untyped-call]
# The library's gradient of a longer filter is several times slower than that of its parts.
LIBRARY_TAPS = 3
# Rows are taken as many at a time as have about this many elements: then what is read and what is
# summed up stays in a core's cache.
BLOCK_ELEMENTS = 3 * 2**16


def suits_library(input_BSH: Tensor, segments: Segments) -> bool:
    """Returns whether `convolve_rows` is for these rows: fp32, not packed, on a CPU.

    Compiled code fuses shifted products itself, and a call of a library would cut it in two; an
    exported graph is run by other libraries, which know a convolution when they see one.
    """
    is_plain = input_BSH.device.type == "cpu" and input_BSH.dtype == torch.float32
    is_one_segment = not segments.is_packed and input_BSH.numel() > 0
    is_compiled = torch.compiler.is_compiling() and not torch.compiler.is_exporting()
    return HAS_LIBRARY and is_plain and is_one_segment and not is_compiled


def convolve_rows(input_BSH: Tensor, weight_KH: Tensor, bias_H: Tensor) -> Tensor:
    """Returns ``bias + sum_j weight[j] * x[s + j - K // 2]``, zeros outside the row."""
    if len(weight_KH) <= LIBRARY_TAPS or not torch.is_grad_enabled():
        return convolve_image(input_BSH, weight_KH, bias_H)
    return cast(
        Tensor,
        LongFilter.apply(input_BSH, weight_KH, bias_H),  # type: ignore[no-untyped-call]
    )


class LongFilter(torch.autograd.Function):
    """`convolve_image` with a gradient of its own for filters of more than `LIBRARY_TAPS` taps."""

    @staticmethod
    def forward(ctx: Any, input_BSH: Tensor, weight_KH: Tensor, bias_H: Tensor) -> Tensor:
        """Returns the convolution; same shape as the input."""
        ctx.save_for_backward(input_BSH, weight_KH)
        return convolve_image(input_BSH, weight_KH, bias_H)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The library's for the input and the inner taps; the outer taps are products summed up."""
        input_BSH, weight_KH = ctx.saved_tensors
        (grad_BSH,) = gradients
        num_outer = (len(weight_KH) - LIBRARY_TAPS) // 2
        inner_KH = weight_KH[num_outer:-num_outer]
        # A convolution too, with the filter turned round.
        grad_input_BSH = convolve_image(grad_BSH, weight_KH.flip(0), None)
        grad_inner_KH, grad_bias_H = inner_gradients(input_BSH, grad_BSH, inner_KH)
        distances = [len(weight_KH) // 2 - near for near in range(num_outer)]
        offsets = [-distance for distance in distances] + distances[::-1]
        early_KH, late_KH = tap_gradients(input_BSH, grad_BSH, offsets).chunk(2)
        return grad_input_BSH, torch.cat([early_KH, grad_inner_KH, late_KH]), grad_bias_H


def as_image(tensor_BSH: Tensor) -> Tensor:
    """Returns rows as images ``[B, H, 1, S]``, where they lie."""
    return tensor_BSH.transpose(1, 2).unsqueeze(2)


def convolve_image(input_BSH: Tensor, weight_KH: Tensor, bias_H: Tensor | None) -> Tensor:
    """Returns the convolution as the library computes and differentiates it."""
    num_taps, num_channels = weight_KH.shape
    with torch.autocast("cpu", enabled=False):
        output_BH1S = F.conv2d(
            as_image(input_BSH), weight_KH.t()[:, None, None], bias_H,
            padding=(0, num_taps // 2), groups=num_channels,
        )  # fmt: skip
    return output_BH1S.squeeze(2).transpose(1, 2).contiguous()


def inner_gradients(
    input_BSH: Tensor, grad_BSH: Tensor, weight_KH: Tensor
) -> tuple[Tensor, Tensor]:
    """Returns the library's gradients of a filter of at most `LIBRARY_TAPS` taps and its bias."""
    num_taps, num_channels = weight_KH.shape
    _, grad_weight_H11K, grad_bias_H = torch.ops.aten.convolution_backward(
        as_image(grad_BSH), as_image(input_BSH), weight_KH.t()[:, None, None], [num_channels],
        [1, 1], [0, num_taps // 2], [1, 1], False, [0, 0], num_channels, [False, True, True],
    )  # fmt: skip
    return grad_weight_H11K[:, 0, 0].t(), grad_bias_H


def tap_gradients(input_BSH: Tensor, grad_BSH: Tensor, offsets: list[int]) -> Tensor:
    """Returns ``sum over b, s of grad[b, s] * input[b, s + offset]`` for each offset, ``[K, H]``.

    The products of a block of rows are added to those of the blocks before, and the positions are
    summed up at the end: one pass per tap in place of two.
    """
    num_rows, length, num_channels = input_BSH.shape
    block = max(BLOCK_ELEMENTS // (length * num_channels), 1)
    sums: dict[int, Tensor] = {}
    for start in range(0, num_rows, block):
        input_RSH, grad_RSH = input_BSH[start : start + block], grad_BSH[start : start + block]
        for offset in offsets:
            before, after = min(max(-offset, 0), length), min(max(offset, 0), length)
            near_RSH = grad_RSH[:, before : length - after]
            far_RSH = input_RSH[:, after : length - before]
            if start == 0:
                sums[offset] = near_RSH * far_RSH
            else:
                sums[offset][: len(near_RSH)].addcmul_(near_RSH, far_RSH)
    return torch.stack([sums[offset].sum((0, 1)) for offset in offsets])
