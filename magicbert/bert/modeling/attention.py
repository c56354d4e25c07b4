"""Multi-head self-attention, ``mha{heads}``.

Shape suffixes: B rows, S positions, H hidden, A heads, D head width.
"""

from __future__ import annotations

import math
import re

import torch.nn.functional as F
from torch import Tensor, nn

from .configuration_magicbert import MagicBertConfig
from .dropout import drops_on_host
from .fused import linear_residual_norm
from .host_attention import host_attention
from .initialization import xavier_bound
from .operator_base import Operator
from .packed_attention import fits_packed_attention, packed_attention
from .segments import Segments


class AttentionProjection(nn.Linear):
    """Several equally wide projections in one matrix, each initialised on its own.

    Args:
        hidden_size: width of input and of each projection.
        num_parts: projections in the matrix.
        gain: of the Xavier-uniform distribution.
    """

    def __init__(self, hidden_size: int, num_parts: int, gain: float) -> None:
        super().__init__(hidden_size, num_parts * hidden_size)
        self.bound = xavier_bound(hidden_size, hidden_size, gain)

    def initialize(self, std: float) -> None:
        """Fills the weights; ``std`` is not used."""
        nn.init.uniform_(self.weight, -self.bound, self.bound)
        nn.init.zeros_(self.bias)


class Attention(Operator):
    """``LN(x + Dropout(O softmax(Q K^T / sqrt(D)) V))`` with a fused Q, K, V projection."""

    pattern = re.compile(r"mha(\d+)")
    form = "mha{heads}"
    example = "mha12"

    def __init__(self, config: MagicBertConfig, num_heads: int) -> None:
        super().__init__(config)
        hidden_size = config.hidden_size
        self.num_heads = num_heads
        self.attention_dropout = config.attention_probs_dropout_prob
        self.query_key_value = AttentionProjection(hidden_size, 3, gain=1 / math.sqrt(2))
        self.output = AttentionProjection(hidden_size, 1, gain=1.0)
        self.norm = nn.LayerNorm(hidden_size, eps=config.layer_norm_eps)

    @classmethod
    def sizes(cls, match: re.Match[str], hidden_size: int) -> dict[str, int]:
        """Reads the number of heads, which must divide the hidden size."""
        num_heads = int(match[1])
        if num_heads < 1 or hidden_size % num_heads:
            fitting = [n for n in range(1, 65) if hidden_size % n == 0]
            raise ValueError(
                f"operator {match[0]!r}: {num_heads} heads do not divide hidden size "
                f"{hidden_size}; use one of {', '.join(f'mha{n}' for n in fitting)}"
            )
        return {"num_heads": num_heads}

    def flops(self, length: int) -> int:
        """Four projections, and two products of length x length per head."""
        hidden_size = self.output.in_features
        return 8 * length * hidden_size**2 + 4 * length**2 * hidden_size

    def forward(self, hidden_BSH: Tensor, segments: Segments) -> Tensor:
        """Returns the next hidden state; a position sees its own segment only."""
        fused_BS3AD = self.query_key_value(hidden_BSH).unflatten(-1, (3, self.num_heads, -1))
        query_BSAD, key_BSAD, value_BSAD = fused_BS3AD.unbind(2)
        mixed_BSH = self.mix(query_BSAD, key_BSAD, value_BSAD, segments).flatten(2)
        call = self.begin(hidden_BSH)
        return linear_residual_norm(self.output, mixed_BSH, hidden_BSH, self.norm, call)

    def mix(
        self, query_BSAD: Tensor, key_BSAD: Tensor, value_BSAD: Tensor, segments: Segments
    ) -> Tensor:
        """Returns each head's weighted values, ``[B, S, A, D]``."""
        dropout = self.attention_dropout if self.training else 0.0
        offsets = segments.run_offsets
        if offsets is not None and fits_packed_attention(query_BSAD):
            return packed_attention(query_BSAD, key_BSAD, value_BSAD, offsets, dropout)
        if drops_on_host(query_BSAD, dropout):
            mask = segments.attention_mask
            return host_attention(query_BSAD, key_BSAD, value_BSAD, mask, dropout)
        mixed_BASD = F.scaled_dot_product_attention(
            query_BSAD.transpose(1, 2),
            key_BSAD.transpose(1, 2),
            value_BSAD.transpose(1, 2),
            attn_mask=segments.attention_mask,
            dropout_p=dropout,
        )
        return mixed_BASD.transpose(1, 2)
