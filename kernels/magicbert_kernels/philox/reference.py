"""The masks in plain PyTorch: what the kernels must equal, and the ``torch`` backend."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

# The first count at which Philox4x32 passes every battery of TestU01 (Salmon et al., table 2);
# ten, the usual choice, is a margin that dropout does not need and that costs 40% more arithmetic.
NUM_ROUNDS = 7
MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
KEY_STEPS = (0x9E3779B9, 0xBB67AE85)
LOW_32 = 0xFFFFFFFF
WORDS_PER_CALL = 4


def draw_seed(device: torch.device) -> Tensor:
    """Returns an int64 seed, 0-dimensional, drawn on the device by torch's generator of it.

    Nothing waits for the device; a captured graph draws a new one at every replay, and a block that
    is recomputed under the restored generator draws the same one again.
    """
    return torch.randint(torch.iinfo(torch.int64).max, (), dtype=torch.int64, device=device)


def keep_mask_reference(seed: Tensor, stream: int, shape: Sequence[int], p: float) -> Tensor:
    """Returns a bool mask of ``shape``, true where an element is kept, with probability 1 - p.

    Args:
        seed: int64, one element, on the device where the mask is wanted.
        stream: which use of this seed, 0 to 2^32 - 1; streams are independent.
        shape: elements are numbered in row-major order.
        p: share to drop, 0 <= p < 1.
    """
    num_elements = math.prod(shape)
    num_groups = -(-num_elements // WORDS_PER_CALL)
    groups = torch.arange(num_groups, dtype=torch.int64, device=seed.device)
    stream_word = torch.full_like(groups, stream)
    counter = (groups & LOW_32, groups >> 32, stream_word, torch.zeros_like(groups))
    words = torch.stack(philox_reference(seed.reshape(()), counter), dim=1)
    return (words.flatten()[:num_elements] >= threshold(p)).reshape(tuple(shape))


def dropout_reference(values: Tensor, seed: Tensor, stream: int, p: float) -> Tensor:
    """Returns ``values`` with a share ``p`` of them set to 0 and the others divided by 1 - p."""
    mask = keep_mask_reference(seed, stream, values.shape, p)
    return torch.where(mask, values * (1.0 / (1.0 - p)), 0.0)


def philox_reference(
    seed: Tensor, counter: tuple[Tensor, ...], num_rounds: int = NUM_ROUNDS
) -> tuple[Tensor, ...]:
    """Returns four words for four counter words; int64 tensors that hold unsigned 32 bits."""
    keys = [seed & LOW_32, (seed >> 32) & LOW_32]
    for _ in range(num_rounds):
        high_0, low_0 = multiply(MULTIPLIERS[0], counter[0])
        high_1, low_1 = multiply(MULTIPLIERS[1], counter[2])
        counter = (high_1 ^ counter[1] ^ keys[0], low_1, high_0 ^ counter[3] ^ keys[1], low_0)
        keys = [(key + step) & LOW_32 for key, step in zip(keys, KEY_STEPS, strict=True)]
    return counter


def multiply(multiplier: int, word: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the high and the low 32 bits of a product of two unsigned 32-bit numbers."""
    # In two steps of 48 bits: the whole product does not fit into a signed 64-bit integer.
    low_part = multiplier * (word & 0xFFFF)
    high_part = multiplier * (word >> 16) + (low_part >> 16)
    return high_part >> 16, ((high_part << 16) | (low_part & 0xFFFF)) & LOW_32


def threshold(p: float) -> int:
    """Returns the smallest word, as an unsigned number, with which an element is kept."""
    return min(round(p * 2**32), LOW_32)


def threshold_bits(p: float) -> int:
    """Returns the threshold's 32 bits as a signed number: an argument of one type for every p."""
    unsigned = threshold(p)
    return unsigned - 2**32 if unsigned >= 2**31 else unsigned


def check_dropout(p: float, seed: Tensor | None, device: torch.device) -> None:
    """Raises ``ValueError`` unless 0 <= p < 1 and there is an int64 seed on the device to use."""
    if not 0.0 <= p < 1.0:
        raise ValueError(f"dropout must be at least 0 and below 1, got {p}")
    if p == 0.0:
        return
    if seed is None:
        raise ValueError("dropout needs a seed: draw one with magicbert_kernels.philox.draw_seed")
    if seed.dtype != torch.int64 or seed.numel() != 1 or seed.device != device:
        raise ValueError(
            f"the seed must be one int64 on {device}, got {seed.dtype} {tuple(seed.shape)} "
            f"on {seed.device}"
        )
