"""The order of the rows: a permutation per epoch that needs no memory.

A Feistel network is a bijection on ``2**(2h)`` numbers; walking along its cycle until the value
falls below ``num_rows`` makes it one on ``0 .. num_rows - 1`` (Black and Rogaway 2002). Any
position of any epoch is found without the ones before it.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from magicbert.data.counter_hash import Words, key_of, mix

NUM_ROUNDS = 6
Indices = npt.NDArray[np.int64]


class RowOrder:
    """The global order of one split, a pure function of the seed.

    Args:
        num_rows: rows in the split, below ``2**62``.
        seed: chooses the order.
    """

    def __init__(self, num_rows: int, seed: int) -> None:
        self.num_rows = num_rows
        self.seed = seed
        self._half_bits = np.uint64(max(1, (max(num_rows - 1, 1).bit_length() + 1) // 2))
        self._half_mask = (np.uint64(1) << self._half_bits) - np.uint64(1)

    def locate(self, positions: Indices) -> tuple[Indices, Indices]:
        """Returns epoch and row of each position; positions count on through the epochs."""
        epochs, offsets = np.divmod(positions, self.num_rows)
        return epochs, self._permute(epochs, offsets)

    def _permute(self, epochs: Indices, offsets: Indices) -> Indices:
        keys = key_of(self.seed, epochs)
        values = offsets.astype(np.uint64)
        outside = np.arange(len(values))
        while outside.size:
            values[outside] = self._feistel(values[outside], keys[outside])
            outside = outside[values[outside] >= self.num_rows]
        return values.astype(np.int64)

    def _feistel(self, values: Words, keys: Words) -> Words:
        left, right = values >> self._half_bits, values & self._half_mask
        for turn in range(NUM_ROUNDS):
            scrambled = mix((right + key_of(turn)) ^ keys)
            left, right = right, left ^ (scrambled & self._half_mask)
        return (left << self._half_bits) | right
