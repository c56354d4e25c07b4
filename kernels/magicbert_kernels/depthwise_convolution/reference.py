"""The depthwise convolution in plain PyTorch: what the kernel must equal; the ``torch`` backend.

Legend: B rows, S positions, H channels, K taps of the filter.
"""

from __future__ import annotations

import torch
from torch import Tensor


def depthwise_convolution_reference(
    hidden_BSH: Tensor, weight_KH: Tensor, bias_H: Tensor, segment_ids_BS: Tensor | None
) -> Tensor:
    """Returns the convolution, summed up in fp32 (fp64 for fp64 inputs).

    See `magicbert_kernels.depthwise_convolution.depthwise_convolution`.
    """
    wide = torch.promote_types(hidden_BSH.dtype, torch.float32)
    input_BSH, taps_KH = hidden_BSH.to(wide), weight_KH.to(wide)
    if segment_ids_BS is not None:
        # A choice and not a product: NaN in padding must reach neither output nor gradient.
        input_BSH = torch.where((segment_ids_BS > 0)[..., None], input_BSH, 0.0)
    length, middle = hidden_BSH.shape[1], len(weight_KH) // 2
    output_BSH = bias_H.to(wide).expand_as(input_BSH)
    for tap in range(len(weight_KH)):
        offset = tap - middle
        if abs(offset) < max(length, 1):
            seen_BSH = neighbours(input_BSH, segment_ids_BS, offset)
            output_BSH = output_BSH + seen_BSH * taps_KH[tap]
    return output_BSH.to(hidden_BSH.dtype)


def neighbours(input_BSH: Tensor, segment_ids_BS: Tensor | None, offset: int) -> Tensor:
    """Returns for each position the one ``offset`` further, or zeros where it sees none there."""
    before, after = max(-offset, 0), max(offset, 0)
    length = input_BSH.shape[1]
    seen_BSH = input_BSH[:, after : length - before]
    if segment_ids_BS is not None:
        near, far = segment_ids_BS[:, before : length - after], segment_ids_BS[:, after:]
        is_linked_BS = near == far[:, : length - abs(offset)]
        seen_BSH = torch.where(is_linked_BS[..., None], seen_BSH, 0.0)
    return torch.nn.functional.pad(seen_BSH, (0, 0, before, after))


def check_inputs(
    hidden_BSH: Tensor, weight_KH: Tensor, bias_H: Tensor, segment_ids_BS: Tensor | None
) -> None:
    """Raises ``ValueError`` unless shapes, types and devices fit together."""
    if hidden_BSH.ndim != 3 or weight_KH.ndim != 2:
        raise ValueError(
            f"expected hidden [B, S, H] and weight [K, H], got {tuple(hidden_BSH.shape)} and "
            f"{tuple(weight_KH.shape)}"
        )
    num_taps, num_channels = weight_KH.shape
    if num_taps % 2 == 0:
        raise ValueError(f"the number of taps must be odd, got {num_taps}")
    if hidden_BSH.shape[2] != num_channels or bias_H.shape != (num_channels,):
        raise ValueError(
            f"channels differ: hidden {hidden_BSH.shape[2]}, weight {num_channels}, "
            f"bias {tuple(bias_H.shape)}"
        )
    if not hidden_BSH.is_floating_point() or not weight_KH.is_floating_point():
        raise ValueError(f"expected floats, got {hidden_BSH.dtype} and {weight_KH.dtype}")
    if bias_H.dtype != weight_KH.dtype:
        raise ValueError(f"weight is {weight_KH.dtype} and bias {bias_H.dtype}")
    devices = {hidden_BSH.device, weight_KH.device, bias_H.device}
    if segment_ids_BS is not None:
        devices.add(segment_ids_BS.device)
        check_segment_ids(segment_ids_BS, hidden_BSH)
    if len(devices) > 1:
        raise ValueError(f"tensors are on several devices: {sorted(map(str, devices))}")


def check_segment_ids(segment_ids_BS: Tensor, hidden_BSH: Tensor) -> None:
    """Raises ``ValueError`` unless there is one integer per position."""
    is_integer = not (segment_ids_BS.is_floating_point() or segment_ids_BS.dtype == torch.bool)
    if segment_ids_BS.shape != hidden_BSH.shape[:2] or not is_integer:
        raise ValueError(
            f"segment ids must be integers {tuple(hidden_BSH.shape[:2])}, got "
            f"{segment_ids_BS.dtype} {tuple(segment_ids_BS.shape)}"
        )
