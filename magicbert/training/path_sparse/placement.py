"""Which values of which parameter stand where in a rank's flat master of a group."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Piece:
    """A run of one parameter's values inside a flat master.

    Padding belongs to no piece. The pieces of all ranks cover every parameter of the group exactly
    once (stage 0: each rank's pieces do), so that a checkpoint can be cut anew for any number of
    ranks and any stage.

    Attributes:
        parameter: number of the parameter among the group's, in the order of
            ``group["parameter_names"]``.
        start: first value, counted in the flattened parameter.
        length: number of values.
        offset: where the run begins in the rank's master.
    """

    parameter: int
    start: int
    length: int
    offset: int


def cut_group(
    parameters: Sequence[int],
    sizes: Sequence[int],
    offsets: Sequence[int],
    window: tuple[int, int],
) -> tuple[Piece, ...]:
    """Returns the pieces of a flattened group that fall into one rank's window of it.

    Args:
        parameters: numbers of the parameters, in the order in which they were flattened.
        sizes: values of each of them.
        offsets: where each begins in the flattened group.
        window: first value of the rank's partition and the one behind its last.
    """
    begin, end = window
    pieces = []
    for parameter, size, offset in zip(parameters, sizes, offsets, strict=True):
        first, last = max(offset, begin), min(offset + size, end)
        if first < last:
            pieces.append(Piece(parameter, first - offset, last - first, first - begin))
    return tuple(pieces)
