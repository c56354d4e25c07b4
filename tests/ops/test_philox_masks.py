"""Statistics and independence of the dropout masks, in plain PyTorch."""

from __future__ import annotations

import pytest
import torch
from magicbert_kernels.philox import (
    check_dropout,
    draw_seed,
    dropout_reference,
    keep_mask_reference,
    threshold_bits,
)
from magicbert_kernels.philox.reference import philox_reference

CPU = torch.device("cpu")
# counter, key, words: the test vectors published with Random123.
KNOWN = [
    (7, [0] * 4, [0] * 2, "5f6fb709 0d893f64 4f121f81 4f730a48"),
    (7, [0xFFFFFFFF] * 4, [0xFFFFFFFF] * 2, "5207ddc2 45165e59 4d8ee751 8c52f662"),
    (10, [0] * 4, [0] * 2, "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    (10, [0xFFFFFFFF] * 4, [0xFFFFFFFF] * 2, "408f276d 41c83b0e a20bc7c6 6d5451fd"),
]


def seed_of(number):
    return torch.tensor(number, dtype=torch.int64)


def correlation(a, b):
    return torch.corrcoef(torch.stack([a.flatten().double(), b.flatten().double()]))[0, 1].item()


@pytest.mark.parametrize(("num_rounds", "counter", "key", "words"), KNOWN)
def test_words_are_those_of_the_published_generator(num_rounds, counter, key, words):
    seed = seed_of((key[1] - (key[1] >> 31 << 32)) * 2**32 + key[0])
    counters = tuple(seed_of([word]) for word in counter)
    got = philox_reference(seed, counters, num_rounds)
    assert " ".join(f"{word.item():08x}" for word in got) == words


@pytest.mark.parametrize("p", [0.0, 0.05, 0.1, 0.5, 0.9])
def test_the_share_kept_is_one_minus_p(p):
    num_elements = 1 << 20
    kept = keep_mask_reference(seed_of(3), 0, (num_elements,), p).sum().item()
    spread = (num_elements * p * (1 - p)) ** 0.5
    assert abs(kept - num_elements * (1 - p)) <= 4.5 * spread


def test_the_four_words_of_a_call_and_neighbouring_calls_are_independent():
    mask = keep_mask_reference(seed_of(5), 1, (1 << 18, 4), 0.5)
    limit = 4.5 / (1 << 18) ** 0.5
    pairs = [(mask[:, i], mask[:, j]) for i in range(4) for j in range(i)]
    pairs += [(mask[1:, i], mask[:-1, i]) for i in range(4)]
    assert max(abs(correlation(a, b)) for a, b in pairs) < limit


@pytest.mark.parametrize(
    ("one", "other"),
    [((7, 0), (7, 1)), ((7, 0), (8, 0)), ((7, 0), (7 + 2**32, 0)), ((0, 1), (1, 0))],
)
def test_seeds_and_streams_are_independent(one, other):
    masks = [keep_mask_reference(seed_of(s), t, (1 << 18,), 0.3) for s, t in (one, other)]
    assert abs(correlation(*masks)) < 4.5 / (1 << 18) ** 0.5


def test_a_mask_depends_on_the_index_of_an_element_and_not_on_the_shape():
    flat = keep_mask_reference(seed_of(2), 0, (105,), 0.4)
    assert torch.equal(keep_mask_reference(seed_of(2), 0, (3, 5, 7), 0.4).flatten(), flat)
    assert torch.equal(keep_mask_reference(seed_of(2), 0, (50,), 0.4), flat[:50])
    assert keep_mask_reference(seed_of(2), 0, (0, 5), 0.4).shape == (0, 5)


def test_dropout_keeps_the_mean_and_its_gradient_has_the_mask_of_the_output():
    values = torch.ones(1 << 16, dtype=torch.float64, requires_grad=True)
    dropped = dropout_reference(values, seed_of(9), 0, 0.2)
    dropped.sum().backward()
    assert abs(dropped.mean().item() - 1.0) < 0.02
    assert torch.equal(values.grad, dropped.detach())
    assert set(dropped.detach().unique().tolist()) == {0.0, 1.25}


def test_seeds_follow_torch_s_generator():
    torch.manual_seed(4)
    first, second = draw_seed(CPU), draw_seed(CPU)
    torch.manual_seed(4)
    assert draw_seed(CPU) == first
    assert first != second
    assert (first.dtype, first.shape) == (torch.int64, ())


@pytest.mark.parametrize("p", [0.0, 0.1, 0.5, 0.75, 1 - 2**-40])
def test_a_threshold_fits_into_32_signed_bits(p):
    assert -(2**31) <= threshold_bits(p) < 2**31
    assert threshold_bits(p) % 2**32 == min(round(p * 2**32), 2**32 - 1)


def test_wrong_dropout_is_refused():
    check_dropout(0.0, None, CPU)
    check_dropout(0.1, seed_of(1), CPU)
    with pytest.raises(ValueError, match="below 1, got 1"):
        check_dropout(1.0, seed_of(1), CPU)
    with pytest.raises(ValueError, match="needs a seed"):
        check_dropout(0.1, None, CPU)
    with pytest.raises(ValueError, match=r"one int64 on cpu, got torch.int32 \(1,\)"):
        check_dropout(0.1, torch.ones(1, dtype=torch.int32), CPU)
