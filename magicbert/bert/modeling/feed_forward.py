"""The feed-forward layer, ``ffn`` or ``ffn{inner}``.

Shape suffixes: B rows, S positions, H hidden, I inner.
"""

from __future__ import annotations

import re

from torch import Tensor, nn

from .configuration_magicbert import MagicBertConfig
from .fused import linear_gelu, linear_residual_norm
from .operator_base import Operator
from .segments import Segments


class FeedForward(Operator):
    """``LN(x + Dropout(W2 gelu(W1 x)))``; the inner width is 4 x hidden unless the name says it."""

    pattern = re.compile(r"ffn(\d+)?")
    form = "ffn or ffn{inner}"
    example = "ffn"

    def __init__(self, config: MagicBertConfig, inner_size: int) -> None:
        super().__init__(config)
        self.inner = nn.Linear(config.hidden_size, inner_size)
        self.outer = nn.Linear(inner_size, config.hidden_size)
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    @classmethod
    def sizes(cls, match: re.Match[str], hidden_size: int) -> dict[str, int]:
        """Reads the inner width."""
        inner_size = int(match[1]) if match[1] else 4 * hidden_size
        if inner_size < 1:
            raise ValueError(f"operator {match[0]!r}: the inner size must be at least 1")
        return {"inner_size": inner_size}

    def flops(self, length: int) -> int:
        """Two products."""
        return 4 * length * self.inner.in_features * self.inner.out_features

    def forward(self, hidden_BSH: Tensor, segments: Segments) -> Tensor:
        """Returns the next hidden state; positions do not see each other."""
        call = self.begin(hidden_BSH)
        inner_BSI = linear_gelu(self.inner, hidden_BSH, call)
        return linear_residual_norm(self.outer, inner_BSI, hidden_BSH, self.norm, call)
