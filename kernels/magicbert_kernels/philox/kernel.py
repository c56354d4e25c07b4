"""Philox dropout masks in Triton, for other kernels to inline."""

# Triton brings no types, and its functions take pointers and compile-time constants.
# mypy: disable-error-code="untyped-decorator,no-untyped-def"

from __future__ import annotations

import triton
import triton.language as tl

from magicbert_kernels.philox import reference

NUM_ROUNDS = tl.constexpr(reference.NUM_ROUNDS)


@triton.jit
def random_words(seed, stream, groups):
    """Returns the four uint32 words of each group of four elements.

    Args:
        seed: int64 scalar, loaded from the seed tensor.
        stream: int32 scalar.
        groups: int32 or int64 block, element index // 4.
    """
    groups = groups.to(tl.int64)
    low = groups.to(tl.uint32)
    high = (groups >> 32).to(tl.uint32)
    zero = low * 0
    stream_word = zero + tl.cast(stream, tl.uint32)
    return tl.philox(seed, low, high, stream_word, zero, NUM_ROUNDS)


@triton.jit
def keep_mask(seed, stream, offsets, threshold):
    """Returns which elements are kept, a block of booleans of the shape of ``offsets``.

    One Philox call per element: for tiles whose rows do not start at multiples of four elements.
    Where they do, `keep_mask_of_fours` makes the same mask with a quarter of the calls.

    Args:
        seed: int64 scalar, loaded from the seed tensor.
        stream: int32 scalar, which use of the seed.
        offsets: int32 or int64 block, each element's index in the whole tensor.
        threshold: int32 scalar, from `magicbert_kernels.philox.threshold_bits`.
    """
    word_0, word_1, word_2, word_3 = random_words(seed, stream, offsets // 4)
    position = offsets % 4
    lower = tl.where(position == 0, word_0, word_1)
    upper = tl.where(position == 2, word_2, word_3)
    word = tl.where(position < 2, lower, upper)
    return word >= tl.cast(threshold, tl.uint32, bitcast=True)


@triton.jit
def keep_bits_of_fours(seed, stream, groups, threshold):
    """Returns which elements are kept, packed: four bits per group of four elements.

    For masks that wait for their use: a group takes one register instead of four.

    Args:
        seed: int64 scalar, loaded from the seed tensor.
        stream: int32 scalar, which use of the seed.
        groups: int32 or int64 block ``[..., N]``: the index // 4 of each group's first element,
            whose index is a multiple of four.
        threshold: int32 scalar, from `magicbert_kernels.philox.threshold_bits`.

    Returns:
        int32 ``[..., N]``; bit i is that of a group's element i.
    """
    limit = tl.cast(threshold, tl.uint32, bitcast=True)
    word_0, word_1, word_2, word_3 = random_words(seed, stream, groups)
    lower = (word_0 >= limit).to(tl.int32) + (word_1 >= limit).to(tl.int32) * 2
    upper = (word_2 >= limit).to(tl.int32) + (word_3 >= limit).to(tl.int32) * 2
    return lower + upper * 4


@triton.jit
def spread_bits(bits):
    """Returns the booleans ``[..., 4 N]`` that `keep_bits_of_fours` packed."""
    lower = tl.interleave(bits & 1, bits & 4)
    upper = tl.interleave(bits & 2, bits & 8)
    return tl.interleave(lower, upper) != 0


@triton.jit
def keep_mask_of_fours(seed, stream, groups, threshold):
    """Returns which elements are kept, booleans ``[..., 4 N]``: see `keep_bits_of_fours`."""
    word_0, word_1, word_2, word_3 = random_words(seed, stream, groups)
    words = tl.interleave(tl.interleave(word_0, word_2), tl.interleave(word_1, word_3))
    return words >= tl.cast(threshold, tl.uint32, bitcast=True)
