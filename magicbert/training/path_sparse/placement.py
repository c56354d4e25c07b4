"""Which values of which parameter stand where in a rank's flat master of a group."""

from __future__ import annotations

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
