"""The masks of the Triton functions against those of PyTorch; run by test_philox_kernel.py.

On the CPU it needs TRITON_INTERPRET=1 before triton is imported, hence a process of its own.
"""

from __future__ import annotations

import os

import pytest
import torch
import triton
import triton.language as tl
from magicbert_kernels.philox import draw_seed, keep_mask_reference, threshold_bits
from magicbert_kernels.philox.kernel import keep_mask, keep_mask_of_fours

DEVICE = torch.device("cpu" if os.environ.get("TRITON_INTERPRET") == "1" else "cuda")


@triton.jit
def mask_kernel(seed_pointer, mask_N, first, threshold, STREAM: tl.constexpr, TILE: tl.constexpr):
    """Stores 0 or 1 per element, one Philox call each; ``first`` is the tensor's index of it."""
    start = tl.program_id(0) * TILE + tl.arange(0, TILE)
    seed = tl.load(seed_pointer)
    keep = keep_mask(seed, STREAM, first.to(tl.int64) + start, threshold)
    tl.store(mask_N + start, keep.to(tl.uint8))


@triton.jit
def fours_kernel(
    seed_pointer, mask_N, first, threshold, STREAM: tl.constexpr, ROWS: tl.constexpr,
    TILE: tl.constexpr,
):  # fmt: skip
    """The same in tiles of ``ROWS`` rows, one Philox call for four elements."""
    seed = tl.load(seed_pointer)
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    groups = rows[:, None] * (TILE // 4) + tl.arange(0, TILE // 4)[None, :]
    keep = keep_mask_of_fours(seed, STREAM, first.to(tl.int64) // 4 + groups, threshold)
    offsets = rows[:, None] * TILE + tl.arange(0, TILE)[None, :]
    tl.store(mask_N + offsets, keep.to(tl.uint8))


def seed_of(number):
    return torch.tensor(number, dtype=torch.int64, device=DEVICE)


def triton_mask(seed, stream, num_elements, p, *, by_fours, first=0):
    mask = torch.full((num_elements,), 7, dtype=torch.uint8, device=DEVICE)
    if by_fours:
        grid = (num_elements // (4 * 64),)
        fours_kernel[grid](seed, mask, first, threshold_bits(p), stream, ROWS=4, TILE=64)
    else:
        mask_kernel[(num_elements // 128,)](seed, mask, first, threshold_bits(p), stream, TILE=128)
    assert mask.max() <= 1
    return mask.bool()


@pytest.mark.parametrize("by_fours", [False, True])
@pytest.mark.parametrize("p", [0.0, 0.1, 0.5, 0.9])
@pytest.mark.parametrize("number", [0, 1234567890123456789, -5])
def test_kernels_and_reference_make_the_same_mask(number, p, by_fours):
    seed = seed_of(number)
    expected = keep_mask_reference(seed, 3, (2048,), p)
    assert torch.equal(triton_mask(seed, 3, 2048, p, by_fours=by_fours), expected)


@pytest.mark.parametrize("by_fours", [False, True])
def test_an_element_beyond_2_to_the_34_has_a_mask_of_its_own(by_fours):
    """There element index // 4 no longer fits into 32 bits."""
    seed = seed_of(11)
    far = triton_mask(seed, 0, 1024, 0.5, by_fours=by_fours, first=2**34 + 256)
    near = triton_mask(seed, 0, 1024, 0.5, by_fours=by_fours, first=256)
    other = triton_mask(seed, 0, 1024, 0.5, by_fours=not by_fours, first=2**34 + 256)
    assert torch.equal(far, other)
    assert 400 < int((far == near).sum()) < 624


def test_a_drawn_seed_works_as_it_is():
    seed = draw_seed(DEVICE)
    mask = triton_mask(seed, 0, 1024, 0.25, by_fours=True)
    assert torch.equal(mask, keep_mask_reference(seed, 0, (1024,), 0.25))
    assert 650 < int(mask.sum()) < 880
