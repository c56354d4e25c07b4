"""Dropout masks that nobody stores: pure functions of a seed, a stream and an element's index.

Philox4x32 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011) turns a 64-bit
key and a 128-bit counter into four 32-bit words. Here the key is the seed, which stays on the
device, and the counter is (element index // 4, stream); element i takes word i % 4 and is kept iff
that word, unsigned, is at least ``p * 2^32``. Forward and backward, Triton and PyTorch, a replayed
graph and a recomputed block all find the same mask without having kept it.

`magicbert_kernels.philox.kernel` has the functions that other kernels inline.
"""

from __future__ import annotations

from magicbert_kernels.philox.reference import (
    check_dropout,
    draw_seed,
    dropout_reference,
    keep_mask_reference,
    threshold_bits,
)

__all__ = [
    "check_dropout",
    "draw_seed",
    "dropout_reference",
    "keep_mask_reference",
    "threshold_bits",
]
