"""Attention with dropout on a CPU, written out.

There scaled_dot_product_attention has no fused form with dropout, and its plain form scales queries
and keys, copies the keys transposed, and goes over all weights three more times to be safe from
queries that see nothing, which `Segments` never leaves. This is the same formula without that.

Shape suffixes: B rows, S positions, A heads, D head width, N = B A.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .dropout import dropped


def host_attention(
    query_BSAD: Tensor,
    key_BSAD: Tensor,
    value_BSAD: Tensor,
    mask: Tensor | None,
    dropout: float,
) -> Tensor:
    """Returns ``Dropout(softmax(Q K^T / sqrt(D))) V``, ``[B, S, A, D]``.

    Args:
        query_BSAD: Q.
        key_BSAD: K.
        value_BSAD: V.
        mask: ``True`` where a query may see a key, ``[B, 1, 1 or S, S]``; every query sees one.
        dropout: probability with which a weight of the softmax is dropped.
    """
    num_rows, length, num_heads, width = query_BSAD.shape
    query_NSD, key_NSD, value_NSD = (
        part.transpose(1, 2).reshape(-1, length, width)
        for part in (query_BSAD, key_BSAD, value_BSAD)
    )
    scores_NSS = torch.bmm(query_NSD * width**-0.5, key_NSD.transpose(1, 2))
    if mask is not None:
        scores_BASS = scores_NSS.view(num_rows, num_heads, length, length)
        scores_NSS = scores_BASS.masked_fill(~mask, -torch.inf).view_as(scores_NSS)
    weights_NSS = dropped(scores_NSS.softmax(-1), dropout)
    mixed_NSD = torch.bmm(weights_NSS, value_NSD)
    return mixed_NSD.view(num_rows, num_heads, length, width).transpose(1, 2)
