from __future__ import annotations

import math

import numpy as np
import pytest

from magicbert.config.sections import MaskingSection
from magicbert.data.counter_hash import below, draws, key_of
from magicbert.data.masking import MaskedRows, Masker

VOCAB, MASK, SPECIAL = 1000, 4, (0, 1, 2, 3, 4)
ROWS, LENGTH = 4000, 128


def masker(rule: str = "bert", probability: float = 0.15) -> Masker:
    section = MaskingSection(rule=rule, probability=probability)  # type: ignore[arg-type]
    return Masker(section, vocab_size=VOCAB, mask_id=MASK, special_ids=SPECIAL)


def plain_rows(seed: int = 0, num_rows: int = ROWS) -> np.ndarray:
    rows = np.random.default_rng(seed).integers(5, VOCAB, (num_rows, LENGTH)).astype(np.uint16)
    rows[:, 0], rows[:, -1] = 2, 3
    return rows


def keys(num_rows: int = ROWS) -> np.ndarray:
    return key_of(0, np.arange(num_rows))


def within(share: float, expected: float, count: int) -> bool:
    """Five standard deviations of a binomial share: a false alarm in two million."""
    return abs(share - expected) < 5 * math.sqrt(expected * (1 - expected) / count)


def fates(masked: MaskedRows) -> tuple[float, float]:
    after = masked.input_ids.reshape(-1)[masked.positions]
    return float((after == MASK).mean()), float((after == masked.labels).mean())


@pytest.mark.parametrize("probability", [0.15, 0.4])
def test_the_share_of_predicted_tokens(probability: float) -> None:
    rows = plain_rows()
    masked = masker(probability=probability)(rows, keys())

    count = ROWS * (LENGTH - 2)
    assert within(len(masked.positions) / count, probability, count)


@pytest.mark.parametrize(
    ("rule", "share_masked", "share_kept"),
    [("bert", 0.8, 0.1 + 0.1 / (VOCAB - 5)), ("electra", 0.85, 0.15)],
)
def test_shares_of_masked_random_and_kept(
    rule: str, share_masked: float, share_kept: float
) -> None:
    masked = masker(rule)(plain_rows(), keys())
    found_masked, found_kept = fates(masked)

    assert within(found_masked, share_masked, len(masked.labels))
    assert within(found_kept, share_kept, len(masked.labels))
    if rule == "electra":
        assert found_masked + found_kept == 1.0


def test_random_tokens_are_uniform_over_ordinary_ones() -> None:
    masked = masker(probability=0.9)(plain_rows(), keys())
    after = masked.input_ids.reshape(-1)[masked.positions]
    random = after[(after != MASK) & (after != masked.labels)]
    counts = np.bincount(random, minlength=VOCAB)

    assert counts[list(SPECIAL)].sum() == 0
    expected = len(random) / (VOCAB - 5)
    chi_square = ((counts[5:] - expected) ** 2 / expected).sum()
    assert chi_square < (VOCAB - 6) + 5 * math.sqrt(2 * (VOCAB - 6))


def test_positions_are_uniform_over_the_row_and_neighbours_independent() -> None:
    masked = masker()(plain_rows(), keys())
    columns = np.bincount(masked.positions % LENGTH, minlength=LENGTH)[1:-1]
    sigma = math.sqrt(ROWS * 0.15 * 0.85)
    chosen = np.zeros(ROWS * LENGTH)
    chosen[masked.positions] = 1
    inner = chosen.reshape(ROWS, LENGTH)[:, 1:-1]
    pairs = inner[:, 1:] * inner[:, :-1]

    assert np.abs(columns - 0.15 * ROWS).max() < 5 * sigma
    assert within(float(pairs.mean()), 0.15**2, pairs.size)


def test_special_tokens_and_padding_are_never_predicted_or_changed() -> None:
    rows = plain_rows()
    rows[:, 50:60], rows[:, 100:] = 1, 0
    masked = masker(probability=0.9)(rows, keys())
    is_special = rows < 5

    assert not is_special.reshape(-1)[masked.positions].any()
    assert np.array_equal(masked.input_ids[is_special], rows[is_special])


def test_labels_are_the_original_tokens_and_the_rest_is_untouched() -> None:
    rows = plain_rows()
    before = rows.copy()
    masked = masker()(rows, keys())
    restored = masked.input_ids.reshape(-1).copy()
    restored[masked.positions] = masked.labels

    assert np.array_equal(rows, before)
    assert np.array_equal(restored.reshape(rows.shape), rows)
    assert (np.diff(masked.positions) > 0).all()


def test_a_mask_does_not_depend_on_the_other_rows_of_the_batch() -> None:
    rows, row_keys = plain_rows(num_rows=50), keys(50)
    together = masker()(rows, row_keys)

    for index in (0, 17, 49):
        alone = masker()(rows[index : index + 1], row_keys[index : index + 1])
        inside = together.positions // LENGTH == index
        assert np.array_equal(alone.input_ids[0], together.input_ids[index])
        assert np.array_equal(alone.positions, together.positions[inside] - index * LENGTH)


def test_another_epoch_masks_other_tokens() -> None:
    rows = plain_rows(num_rows=100)
    sample = np.arange(100)
    first = masker()(rows, key_of(0, 0, sample)).positions
    second = masker()(rows, key_of(0, 1, sample)).positions
    shared = len(np.intersect1d(first, second)) / len(first)

    assert shared == pytest.approx(0.15, abs=0.06)


@pytest.mark.parametrize("length", [8, 9, 33])
def test_odd_lengths(length: int) -> None:
    rows = np.full((2000, length), 7, dtype=np.int32)
    masked = masker()(rows, keys(2000))

    assert within(len(masked.positions) / rows.size, 0.15, rows.size)
    assert masked.positions.max() < rows.size


def test_keys_tell_their_parts_apart() -> None:
    found = {
        int(key_of(*parts)[0])
        for parts in [(0, 1), (1, 0), (0, 1, 0), (1,), (0,), (-1,), (2**64 - 1, 0)]
    }

    assert len(found) == 7


def test_hash_bits_are_balanced_and_avalanche() -> None:
    words = draws(key_of(0, np.arange(2000)), 10).reshape(-1)
    bits = (words[:, None] >> np.arange(64, dtype=np.uint64)) & np.uint64(1)
    neighbours = draws(key_of(0, np.arange(2000)), 11)
    flips = (neighbours[:, 1:] ^ neighbours[:, :-1]).reshape(-1)
    num_flips = ((flips[:, None] >> np.arange(64, dtype=np.uint64)) & np.uint64(1)).sum(axis=1)

    sigma = 0.5 / math.sqrt(len(words))
    assert np.abs(bits.mean(axis=0) - 0.5).max() < 5 * sigma
    assert num_flips.mean() == pytest.approx(32, abs=5 * 4 / math.sqrt(len(flips)))


def test_below_covers_its_range_evenly() -> None:
    counts = np.bincount(below(draws(key_of(1), 60_000)[0], 6), minlength=6)

    assert np.abs(counts - 10_000).max() < 5 * math.sqrt(60_000 * 5 / 36)
