"""Attention over packed rows as a list of sequences: no mask, no work between documents.

Runs on CUDA in half precision, where torch has FlashAttention's form for sequences of unequal
length. Elsewhere `Attention` gives scaled_dot_product_attention a mask, which is the same formula.

Shape suffixes: B rows, S positions, T = B S, A heads, D head width, R runs of equal segment ids.
"""

from __future__ import annotations

import functools
from typing import cast

import torch
from torch import Tensor

try:
    from torch.nn.attention.varlen import varlen_attn

    HAS_VARLEN = True
except ImportError:
    HAS_VARLEN = False

LARGEST_HEAD = 256
HEAD_MULTIPLE = 8


def fits_packed_attention(query_BSAD: Tensor) -> bool:
    """Returns whether `packed_attention` can run on tensors such as this one."""
    width = query_BSAD.shape[-1]
    return (
        HAS_VARLEN
        and query_BSAD.is_cuda
        and query_BSAD.dtype in (torch.float16, torch.bfloat16)
        and width % HEAD_MULTIPLE == 0
        and width <= LARGEST_HEAD
        and torch.backends.cuda.flash_sdp_enabled()  # type: ignore[no-untyped-call]
        and _device_has_flash(query_BSAD.device.index)
    )


@functools.cache
def _device_has_flash(index: int) -> bool:
    is_built = torch.version.hip is None and torch.backends.cuda.is_flash_attention_available()
    return is_built and torch.cuda.get_device_capability(index) >= (8, 0)


def packed_attention(
    query_BSAD: Tensor, key_BSAD: Tensor, value_BSAD: Tensor, offsets_R: Tensor, dropout: float
) -> Tensor:
    """Returns ``softmax(Q K^T / sqrt(D)) V`` within each run, ``[B, S, A, D]``.

    Args:
        query_BSAD: Q.
        key_BSAD: K.
        value_BSAD: V.
        offsets_R: int32 ``[R + 1]``: where each run begins in the T positions, and T itself.
        dropout: probability with which a weight of the softmax is dropped.
    """
    query, key, value = (part.flatten(0, 1) for part in (query_BSAD, key_BSAD, value_BSAD))
    # No run is longer than a row. The true maximum would have to come from the device.
    longest = query_BSAD.shape[1]
    sequences = (offsets_R, offsets_R, longest, longest)
    if dropout == 0.0:
        mixed = cast(Tensor, varlen_attn(query, key, value, *sequences))
    else:
        # varlen_attn has no dropout. This is the call under it, with which torch's own
        # scaled_dot_product_attention of jagged tensors drops weights.
        flash = torch.ops.aten._flash_attention_forward
        mixed = flash(query, key, value, *sequences, dropout, False, False)[0]
    return mixed.view(query_BSAD.shape)
