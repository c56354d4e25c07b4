"""Random bits as a pure function of counters: splitmix64, vectorised over numpy arrays.

A draw depends on its key and counter alone, so it is the same whatever the order, the batch or
the number of ranks it is made in. numpy's own generators would have to be advanced, and their
streams may change between versions.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Words = npt.NDArray[np.uint64]

# Constants of splitmix64 (Steele, Lea, Flood 2014; Stafford's variant 13).
GOLDEN = np.uint64(0x9E3779B97F4A7C15)
FIRST = np.uint64(0xBF58476D1CE4E5B9)
SECOND = np.uint64(0x94D049BB133111EB)
SHIFTS = (np.uint64(30), np.uint64(27), np.uint64(31))


def mix(words: Words) -> Words:
    """Applies splitmix64's finaliser in place: a bijection of 64 bits, every bit avalanches."""
    shifted = np.empty_like(words)
    for shift, factor in zip(SHIFTS, (FIRST, SECOND, None), strict=True):
        np.right_shift(words, shift, out=shifted)
        np.bitwise_xor(words, shifted, out=words)
        if factor is not None:
            np.multiply(words, factor, out=words)
    return words


def key_of(*parts: int | npt.NDArray[np.integer]) -> Words:
    """Folds integers into keys, broadcasting arrays; order and number of the parts matter."""
    key = np.zeros(1, dtype=np.uint64)  # an array: scalars would warn when they wrap
    for part in parts:
        if isinstance(part, int):
            part = np.array(part % 2**64, dtype=np.uint64)
        key = mix(((key + GOLDEN) ^ part.astype(np.uint64)) + GOLDEN)
    return key


def draws(keys: Words, num_draws: int) -> Words:
    """Returns ``num_draws`` 64-bit words for each key, ``[len(keys), num_draws]``."""
    counters = np.arange(1, num_draws + 1, dtype=np.uint64) * GOLDEN
    return mix(keys[:, None] + counters)


def below(words: Words, bound: int) -> npt.NDArray[np.int64]:
    """Maps 64-bit words to ``0 .. bound - 1``; the bias is below ``bound / 2**32``."""
    return (((words >> np.uint64(32)) * np.uint64(bound)) >> np.uint64(32)).astype(np.int64)
