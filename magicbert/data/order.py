"""The order of the rows: a permutation per epoch that needs no memory.

A Feistel network is a bijection on ``2**bits`` numbers; walking along its cycle until the value
falls below ``num_rows`` makes it one on ``0 .. num_rows - 1`` (Black and Rogaway 2002). Any
position of any epoch is found without the ones before it.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from magicbert.data.counter_hash import Words, key_of, mix

NUM_ROUNDS = 8  # each scrambles one half
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
        num_bits = max(6, (num_rows - 1).bit_length())  # fewer mix too little
        self._low_bits = np.uint64(num_bits // 2)
        self._low_mask = np.uint64(2 ** (num_bits // 2) - 1)
        self._high_mask = np.uint64(2 ** (num_bits - num_bits // 2) - 1)
        self._round_keys = key_of(np.arange(NUM_ROUNDS))

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
        high, low = values >> self._low_bits, values & self._low_mask
        for turn, round_key in enumerate(self._round_keys):
            if turn % 2:
                low ^= mix((high + round_key) ^ keys) & self._low_mask
            else:
                high ^= mix((low + round_key) ^ keys) & self._high_mask
        return (high << self._low_bits) | low
