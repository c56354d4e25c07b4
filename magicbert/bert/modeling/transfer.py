"""A border between two widths: a learned linear map ahead of the first operator behind it.

Shape suffixes: B rows, S positions, F width before the border, H width behind it.
"""

from __future__ import annotations

from torch import Tensor, nn

from .operator_base import Operator
from .segments import Segments


class Transferred(nn.Module):
    """An operator whose input comes from a stream of another width (NAS-BERT's hidden transfer).

    Args:
        operator: the operator.
        from_size: width of the stream before it.
        to_size: the operator's own width.
    """

    def __init__(self, operator: Operator, from_size: int, to_size: int) -> None:
        super().__init__()
        self.transfer = nn.Linear(from_size, to_size)
        self.operator = operator

    def flops(self, length: int) -> int:
        """Returns the forward FLOPs of one row: the map's product and the operator's own."""
        from_size, to_size = self.transfer.in_features, self.transfer.out_features
        return 2 * length * from_size * to_size + self.operator.flops(length)

    def forward(self, hidden_BSF: Tensor, segments: Segments) -> Tensor:
        """Returns the next hidden state, ``[B, S, H]``."""
        hidden_BSH = segments.hide_padding(self.transfer(hidden_BSF))
        output_BSH: Tensor = self.operator(hidden_BSH, segments)
        return output_BSH
