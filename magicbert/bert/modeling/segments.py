"""Which positions of a batch belong together: padding, single documents and packed documents.

Shape suffixes: B rows, S positions of a row, 1 a broadcast axis.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

RUNS_STEP = 64


class Layout(Protocol):
    """What the host may know of segment ids before a forward begins."""

    @property
    def has_padding(self) -> bool:
        """Whether some position is padding."""
        ...

    @property
    def is_packed(self) -> bool:
        """Whether some row holds several documents."""
        ...

    @property
    def num_runs(self) -> int:
        """Number of runs of equal ids."""
        ...

    @property
    def has_holes(self) -> bool:
        """Whether some document goes on after padding."""
        ...


@dataclass(frozen=True, slots=True)
class SeenLayout:
    """A layout that was read from the ids themselves; the attributes are `Layout`'s."""

    has_padding: bool
    is_packed: bool
    num_runs: int
    has_holes: bool

    @classmethod
    def of_ids(cls, ids_BS: Tensor) -> SeenLayout:
        """Looks at the data once (one synchronisation on a GPU)."""
        valid_BS = ids_BS > 0
        is_other_BS = valid_BS & (ids_BS != ids_BS.amax(1, keepdim=True))
        seen = [~valid_BS.all(), is_other_BS.any(), *_runs_and_holes(ids_BS)]
        has_padding, is_packed, num_runs, num_holes = torch.stack(seen).tolist()
        return cls(bool(has_padding), bool(is_packed), num_runs, bool(num_holes))


@dataclass(frozen=True)
class Segments:
    """What operators need to know about a batch, built once per forward.

    Positions with the same id in a row form a segment; attention and convolution never leave it.
    Attributes that a batch does not need are ``None``, and operators then skip the work.

    Attributes:
        ids: ``[B, S]``, 0 = padding, 1.. = the document, ascending in a row; ``None`` = every row
            is one full segment.
        position_ids: ``[B, S]``, counted from the start of each segment; ``[1, S]`` if all rows
            agree.
        valid: ``[B, S]``, ``True`` where there is no padding; ``None`` = everywhere.
        attention_mask: ``True`` where a query (third axis) may see a key (last axis),
            ``[B, 1, 1, S]`` or ``[B, 1, S, S]``; ``None`` = everywhere.
        is_packed: some row holds several segments.
        run_offsets: int32 ``[R + 1]``, where each run of equal ids begins among all B S positions,
            and B S itself, more than once where R was rounded up; for attention over packed rows on
            a GPU, ``None`` elsewhere, and where a segment has a hole and is several runs.
    """

    ids: Tensor | None
    position_ids: Tensor
    valid: Tensor | None
    attention_mask: Tensor | None
    is_packed: bool
    run_offsets: Tensor | None = None
    _linked: dict[tuple[int, torch.dtype], Tensor] = field(
        default_factory=dict, repr=False, compare=False
    )

    @classmethod
    def full(cls, length: int, device: torch.device) -> Segments:
        """Returns the segments of rows that are one document without padding."""
        return cls(None, torch.arange(length, device=device)[None], None, None, False)

    @classmethod
    def of_ids(cls, ids_BS: Tensor, layout: Layout | None = None) -> Segments:
        """Describes segment ids.

        Args:
            ids_BS: integer ids, 0 = padding.
            layout: of these ids; given, nothing waits for the device.
        """
        known = SeenLayout.of_ids(ids_BS) if layout is None else layout
        if not known.has_padding and not known.is_packed:
            return cls.full(ids_BS.shape[1], ids_BS.device)
        valid_BS = ids_BS > 0
        has_offsets = known.is_packed and not known.has_holes and ids_BS.is_cuda
        return cls(
            ids_BS,
            _restarting_positions(ids_BS),
            valid_BS if known.has_padding else None,
            _same_segment(ids_BS) if known.is_packed else _visible_keys(valid_BS),
            known.is_packed,
            run_offsets(ids_BS, _rounded_up(known.num_runs)) if has_offsets else None,
        )

    @classmethod
    def of_mask(cls, attention_mask_BS: Tensor) -> Segments:
        """Describes rows of one document each, padded anywhere, without looking at the data.

        For code that is traced once and then sees other batches: it always masks.

        Args:
            attention_mask_BS: 0 = padding.
        """
        valid_BS = attention_mask_BS > 0
        return cls(
            valid_BS.long(), _positions_of_one(valid_BS), valid_BS, _visible_keys(valid_BS), False
        )

    def select(self, rows: Tensor) -> Segments:
        """Returns the segments of some rows, ``[n]`` int64, without looking at the data.

        The limits stay those of the whole batch: rows without padding among padded ones keep a
        mask that hides nothing.
        """

        def narrowed(tensor: Tensor | None) -> Tensor | None:
            return None if tensor is None else tensor.index_select(0, rows)

        is_shared = self.position_ids.shape[0] == 1
        ids_BS, offsets_R = narrowed(self.ids), self.run_offsets
        if ids_BS is not None and offsets_R is not None:
            offsets_R = run_offsets(ids_BS, len(offsets_R) - 1)
        return Segments(
            ids_BS,
            self.position_ids if is_shared else self.position_ids.index_select(0, rows),
            narrowed(self.valid),
            narrowed(self.attention_mask),
            self.is_packed,
            offsets_R,
        )

    def hide_padding(self, hidden_BSH: Tensor) -> Tensor:
        """Returns ``hidden_BSH`` with zeros at padded positions."""
        if self.valid is None:
            return hidden_BSH
        return hidden_BSH.masked_fill(~self.valid[..., None], 0.0)

    def linked(self, offset: int, dtype: torch.dtype) -> Tensor | None:
        """Returns 1 where position ``s`` and ``s + offset`` share a segment, else 0.

        Args:
            offset: distance, at least 1.
            dtype: of the result.

        Returns:
            ``[B, S - offset, 1]``, or ``None`` where every row is one segment.
        """
        if not self.is_packed or self.ids is None:
            return None
        if torch.compiler.is_compiling() or (
            self.ids.is_cuda and torch.cuda.is_current_stream_capturing()
        ):
            # Compiled or recorded code must not depend on which operators ran before.
            return self._link(offset, dtype)
        key = (offset, dtype)
        if key not in self._linked:
            self._linked[key] = self._link(offset, dtype)
        return self._linked[key]

    def _link(self, offset: int, dtype: torch.dtype) -> Tensor:
        assert self.ids is not None
        return (self.ids[:, offset:] == self.ids[:, :-offset])[..., None].to(dtype)


def run_offsets(ids_BS: Tensor, num_runs: int) -> Tensor:
    """Returns where each run of equal ids begins among all positions, and their number at the end.

    Args:
        ids_BS: segment ids.
        num_runs: how many there are, or more; given, so that nothing waits for the device.

    Returns:
        int32 ``[num_runs + 1]``; runs that are not there begin and end behind the last position.
    """
    begins_T = _begins(ids_BS).flatten()
    index_T = torch.arange(len(begins_T), dtype=torch.int32, device=ids_BS.device)
    # Positions inside a run write the end of the list, which holds their number anyway.
    slot_T = torch.where(begins_T, begins_T.cumsum(0) - 1, num_runs)
    offsets_R = torch.full((num_runs + 1,), len(begins_T), dtype=torch.int32, device=ids_BS.device)
    return offsets_R.scatter_(0, slot_T, torch.where(begins_T, index_T, len(begins_T)))


def _rounded_up(num_runs: int) -> int:
    """Compiled and recorded code is made for sizes: batches should have few of them."""
    return -(-num_runs // RUNS_STEP) * RUNS_STEP


def _runs_and_holes(ids_BS: Tensor) -> tuple[Tensor, Tensor]:
    """Counts runs of equal ids, and those that go on with a segment after some padding."""
    begins_BS, running_BS = _begins(ids_BS), ids_BS.cummax(1).values
    num_documents = (_begins(running_BS) & (running_BS > 0)).sum()
    return begins_BS.sum(), (begins_BS & (ids_BS > 0)).sum() - num_documents


def _begins(ids_BS: Tensor) -> Tensor:
    """Returns where an id differs from the one before it in its row."""
    begins_BS = torch.ones_like(ids_BS, dtype=torch.bool)
    begins_BS[:, 1:] = ids_BS[:, 1:] != ids_BS[:, :-1]
    return begins_BS


def _restarting_positions(ids_BS: Tensor) -> Tensor:
    """Counts positions from the start of each segment; a hole inside a segment keeps counting."""
    running_BS = ids_BS.cummax(1).values
    index_S = torch.arange(ids_BS.shape[1], device=ids_BS.device)
    is_start_BS = torch.ones_like(ids_BS, dtype=torch.bool)
    is_start_BS[:, 1:] = running_BS[:, 1:] != running_BS[:, :-1]
    start_BS = torch.where(is_start_BS, index_S, 0).cummax(1).values
    return index_S - start_BS


def _positions_of_one(valid_BS: Tensor) -> Tensor:
    """`_restarting_positions` of rows of one document each, in operators that every format has."""
    index_S = torch.arange(valid_BS.shape[1], device=valid_BS.device)
    first_B1 = valid_BS.long().argmax(1, keepdim=True)
    return torch.where(index_S < first_B1, index_S, index_S - first_B1)


def _same_segment(ids_BS: Tensor) -> Tensor:
    """Padding sees padding, so no query is left without a key (softmax of nothing is NaN)."""
    return (ids_BS[:, :, None] == ids_BS[:, None, :])[:, None]


def _visible_keys(valid_BS: Tensor) -> Tensor:
    """A row of nothing but padding sees itself, for the same reason."""
    return (valid_BS | ~valid_BS.any(1, keepdim=True))[:, None, None]
