"""Random numbers as a pure function of (seed, stream, index): nothing is carried between calls."""

from __future__ import annotations

import hashlib

import numpy as np

UINT64 = 2**64


def keyed_generator(seed: int, stream: str, index: int) -> np.random.Generator:
    """Returns a fresh counter-based generator.

    The key of Philox is (seed, index); the name of the stream picks one of 2^64 disjoint ranges of
    its counter, so two uses of one seed never see the same numbers.

    Args:
        seed: the user's seed.
        stream: what the numbers are for, such as ``path``.
        index: optimizer step or round.
    """
    digest = hashlib.sha256(stream.encode()).digest()
    stream_number = int.from_bytes(digest[:8], "little")
    key = np.array([seed % UINT64, index % UINT64], dtype=np.uint64)
    counter = np.array([0, 0, 0, stream_number], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=counter))
