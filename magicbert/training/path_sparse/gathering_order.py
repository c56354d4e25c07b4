"""In which messages the weights of a step are gathered: known before the step begins."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class GatherOrder:
    """Owners in the order of their first use, cut into messages.

    Attributes:
        chunks: owners of each message; those of the anchor's pass come first.
        path: number of the message that brings each owner of the trained path.
        anchor: the same for the anchor's pass, which needs its weights in the forward only.
    """

    chunks: tuple[tuple[str, ...], ...] = ()
    path: Mapping[str, int] = field(default_factory=dict)
    anchor: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        path: Sequence[str],
        anchor: Sequence[str],
        sizes: Mapping[str, int],
        bucket_size: int,
    ) -> GatherOrder:
        """Packs the owners of both passes.

        Args:
            path: owners that the trained path uses, in order.
            anchor: owners that the anchor's forward uses before; empty = no anchor.
            sizes: values of each owner.
            bucket_size: values of one message; a larger owner makes a message of its own.
        """
        first = pack(anchor, sizes, bucket_size)
        second = pack(path, sizes, bucket_size)
        return cls(
            (*first, *second),
            {owner: len(first) + i for i, chunk in enumerate(second) for owner in chunk},
            {owner: i for i, chunk in enumerate(first) for owner in chunk},
        )


def pack(owners: Sequence[str], sizes: Mapping[str, int], limit: int) -> list[tuple[str, ...]]:
    """Cuts a sequence into runs of at most ``limit`` values, or of one owner."""
    chunks: list[tuple[str, ...]] = []
    size = 0
    for owner in owners:
        if chunks and size + sizes[owner] <= limit:
            chunks[-1] = (*chunks[-1], owner)
            size += sizes[owner]
        else:
            chunks.append((owner,))
            size = sizes[owner]
    return chunks
