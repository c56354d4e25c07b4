"""How the rows are cut into tiles: a row belongs to as few lanes as can read all of it at once."""

from __future__ import annotations

from dataclasses import dataclass

import torch

LANES_PER_WARP = 32
ACCESS_BYTES = 16
NARROWEST = 32


@dataclass(frozen=True, slots=True)
class Tiling:
    """A row is ``num_tiles`` pieces of ``columns``; a tile is one such piece of ``rows`` rows."""

    rows: int
    columns: int
    num_tiles: int


def choose_tiling(width: int, dtype: torch.dtype, num_warps: int, most_per_lane: int) -> Tiling:
    """Returns the tiling with the fewest lanes that hold nothing; of equals, the widest.

    768 columns of bf16 are three tiles of 256: every lane of a warp reads 128 bits of one row, and
    the row's sums stay within that warp. Rows too long for a warp are shared by several.

    Args:
        width: elements of a row.
        dtype: type with which most of the bytes travel.
        num_warps: warps of a program.
        most_per_lane: most elements of one row and tensor that a lane may hold.
    """
    per_access = ACCESS_BYTES // dtype.itemsize
    most_tiles = most_per_lane // per_access
    columns = LANES_PER_WARP * per_access
    while -(-width // columns) > most_tiles:
        columns *= 2
    candidates = []
    while columns >= NARROWEST and -(-width // columns) <= most_tiles:
        num_tiles = -(-width // columns)
        candidates.append((num_tiles * columns, num_tiles, columns))
        columns //= 2
    _, num_tiles, columns = min(candidates)
    rows = max(LANES_PER_WARP * num_warps * per_access // columns, 1)
    return Tiling(rows, columns, num_tiles)
