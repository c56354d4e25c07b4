"""The identity, ``skip``: a layer that is left out."""

from __future__ import annotations

import re

from torch import Tensor

from .operator_base import Operator
from .segments import Segments


class Skip(Operator):
    """Returns its input; it has no weights, no norm and no cost (NAS-BERT's Identity)."""

    pattern = re.compile(r"skip")
    form = "skip"
    example = "skip"

    @classmethod
    def sizes(cls, match: re.Match[str], hidden_size: int) -> dict[str, int]:
        """There are none."""
        return {}

    def flops(self, length: int) -> int:
        """Nothing is computed."""
        return 0

    def forward(self, hidden_BSH: Tensor, segments: Segments) -> Tensor:
        """Returns the hidden state as it is."""
        return hidden_BSH
