"""The fingerprint of a call, and the hash of a step's samples."""

from __future__ import annotations

import random

import torch
from hypothesis import given
from hypothesis import strategies as st
from toy_tenant import ToySource

from magicbert.training.ranks import WORD_BITS, WORDS, fingerprint, is_common, table
from magicbert.training.samples import MODULUS, DatedSource, hash_of

WORD = st.integers(0, 2**WORD_BITS - 1)


def head_of(words: list[int]) -> torch.Tensor:
    return torch.tensor([power for word in words for power in (word, word**2)]).double()


@given(st.lists(WORD, min_size=1, max_size=40))
def test_no_combination_of_words_cancels_out(words: list[int]) -> None:
    total = torch.stack([head_of([word]) for word in words]).sum(0)
    assert is_common(total, len(words)) == (len(set(words)) == 1)


def test_words_of_a_million_ranks_are_summed_exactly() -> None:
    largest = head_of([2**WORD_BITS - 1])
    assert is_common(largest * 2**20, 2**20)
    assert not is_common(largest * (2**20 - 1) + head_of([2**WORD_BITS - 2]), 2**20)


def test_a_fingerprint_sees_every_fact_and_the_number_of_values() -> None:
    view = {"doing": "step", "step": 7, "path": "a-b"}
    others = [fingerprint({**view, name: "x"}, 3) for name in view] + [fingerprint(view, 4)]
    assert len(fingerprint(view, 3)) == 2 * WORDS
    assert all(not torch.equal(fingerprint(view, 3), other) for other in others)


def test_the_table_shows_what_differs_and_nothing_else() -> None:
    views = [{"step": "7", "path": "a-b"}, {"step": "7", "path": "a-c"}]
    assert table(views).split() == ["rank", "path", "0", "a-b", "1", "a-c"]
    assert "-" in table([{"doing": "step", "step": "3"}, {"doing": "evaluation"}])


def test_hashes_of_parts_add_up_and_order_does_not_count() -> None:
    ids = list(range(100))
    random.Random(0).shuffle(ids)
    whole = hash_of(range(100))
    assert (hash_of(ids[:30]) + hash_of(ids[30:])) % MODULUS == whole
    assert hash_of([]) == 0
    assert len({hash_of([id]) for id in range(1000)}) == 1000
    assert hash_of([*range(99), 98]) != whole


def test_a_source_without_names_has_hash_zero() -> None:
    (data,) = DatedSource(ToySource(4)).step_batches(3, 0, 2)
    assert (data.step, data.own_samples, data.all_samples) == (3, 0, 0)
