"""A batch of masked token rows."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from magicbert.data.layout import RowLayout


@dataclass(frozen=True)
class TokenBatch:
    """Rows of one micro-batch after masking.

    Attributes:
        input_ids: ``[rows, length]`` int64, masked tokens replaced.
        segment_ids: ``[rows, length]`` int64; 0 = padding, 1.. = the document in the row.
        predicted_positions: ``[M]`` int64, ascending flat indices into ``rows * length``.
        labels: ``[M]`` int64, the original tokens at those positions.
        sample_ids: index of each row in its split.
        layout: of ``segment_ids``; read where the batch is built, on the host, and ``None`` only
            where there are no values to read.
    """

    input_ids: Tensor
    segment_ids: Tensor
    predicted_positions: Tensor
    labels: Tensor
    sample_ids: tuple[int, ...]
    layout: RowLayout | None = None

    def __post_init__(self) -> None:
        """Reads the layout, unless it was read before."""
        if self.layout is None and not self.segment_ids.is_meta:
            object.__setattr__(self, "layout", RowLayout.of_ids(self.segment_ids))

    def to(self, device: torch.device) -> TokenBatch:
        """Returns the batch on a device; the copy does not wait for the device."""
        return TokenBatch(
            self.input_ids.to(device, non_blocking=True),
            self.segment_ids.to(device, non_blocking=True),
            self.predicted_positions.to(device, non_blocking=True),
            self.labels.to(device, non_blocking=True),
            self.sample_ids,
            self.layout,
        )
