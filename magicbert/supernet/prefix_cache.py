"""Hidden states of prefixes kept from call to call, the least recently used given up first."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field

from torch import Tensor

Prefix = tuple[str, ...]


@dataclass(slots=True)
class _Shelf:
    """The hidden states of one batch, least recently used first."""

    states: OrderedDict[Prefix, Tensor] = field(default_factory=OrderedDict)
    num_bytes: int = 0

    def make_room(self, wanted: int, limit: int) -> None:
        """Gives up the oldest until so many bytes fit; nothing is left if they never do."""
        while self.states and self.num_bytes + wanted > limit:
            self.num_bytes -= self.states.popitem(last=False)[1].nbytes


class PrefixCache:
    """Keeps hidden states by batch and prefix; never holds more than it may.

    Every batch has an equal part of the memory. One queue for all would give up the prefixes of
    the first batch while the last one runs, just before they are asked for again.
    """

    def __init__(self) -> None:
        self._shelves: dict[int, _Shelf] = {}
        self._bytes_per_batch = 0

    @property
    def num_bytes(self) -> int:
        """Bytes that are held now."""
        return sum(shelf.num_bytes for shelf in self._shelves.values())

    def __len__(self) -> int:
        """Number of hidden states that are held now."""
        return sum(len(shelf.states) for shelf in self._shelves.values())

    def divide(self, num_batches: int, max_bytes: int) -> None:
        """Divides the memory among batches ``0 .. num_batches - 1``; others lose theirs.

        Args:
            num_batches: how many there are.
            max_bytes: of all hidden states together; 0 = nothing is kept.
        """
        self._bytes_per_batch = max_bytes // max(num_batches, 1)
        self._shelves = {
            number: shelf for number, shelf in self._shelves.items() if number < num_batches
        }
        for shelf in self._shelves.values():
            shelf.make_room(0, self._bytes_per_batch)

    def take(self, batch: int, prefix: Prefix) -> Tensor | None:
        """Returns a hidden state and gives it up; its user puts it back with `put` when done."""
        shelf = self._shelves.get(batch)
        hidden = None if shelf is None else shelf.states.pop(prefix, None)
        if shelf is not None and hidden is not None:
            shelf.num_bytes -= hidden.nbytes
        return hidden

    def put(self, batch: int, prefix: Prefix, hidden: Tensor) -> None:
        """Keeps a hidden state as the one used last, if it fits at all.

        A part of a larger tensor is copied: kept as it is, it would hold the whole of it.
        """
        if hidden.nbytes > self._bytes_per_batch:
            return
        shelf = self._shelves.setdefault(batch, _Shelf())
        shelf.make_room(hidden.nbytes, self._bytes_per_batch)
        is_part = hidden.untyped_storage().nbytes() > hidden.nbytes
        shelf.states[prefix] = hidden.clone() if is_part else hidden
        shelf.num_bytes += hidden.nbytes
