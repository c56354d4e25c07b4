"""What the host knows of how documents lie in rows, so that nothing need ask the device."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, slots=True)
class RowLayout:
    """Facts about the segment ids of a batch.

    Attributes:
        num_tokens: positions that are not padding.
        has_padding: some position is padding.
        is_packed: some row holds several documents.
        num_runs: runs of equal ids, padding's included; none goes on in the next row.
        has_holes: some document goes on after padding.
    """

    num_tokens: int
    has_padding: bool
    is_packed: bool
    num_runs: int
    has_holes: bool

    @classmethod
    def of_ids(cls, segment_ids: Tensor) -> RowLayout:
        """Reads ``[rows, length]`` ids, 0 = padding, 1.. = the document; they are on the host."""
        is_valid = segment_ids > 0
        num_rows, num_tokens = len(segment_ids), int(is_valid.sum())
        num_changes = int((segment_ids[:, 1:] != segment_ids[:, :-1]).sum())
        # A document that goes on after padding starts a run of its own, but no document.
        documents = segment_ids.cummax(1).values
        starts = int((is_valid[:, 1:] & (segment_ids[:, 1:] != segment_ids[:, :-1])).sum())
        new_documents = int((documents[:, 1:] != documents[:, :-1]).sum())
        last_documents = segment_ids.amax(1, keepdim=True)
        return cls(
            num_tokens=num_tokens,
            has_padding=num_tokens < segment_ids.numel(),
            is_packed=bool((is_valid & (segment_ids != last_documents)).any()),
            num_runs=num_rows + num_changes,
            has_holes=starts != new_documents,
        )
