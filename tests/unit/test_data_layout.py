"""What the host knows of a batch is what the ids say, and it travels with the batch."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from bert_examples import FULL, PACKED, PADDED, batch, segment_ids

from magicbert.bert.modeling.segments import SeenLayout, Segments
from magicbert.data.layout import RowLayout

HOLES = torch.tensor([[1, 0, 1, 2], [0, 0, 1, 1], [1, 2, 2, 0]])
FACTS = [field.name for field in dataclasses.fields(SeenLayout)]


@pytest.mark.parametrize(
    ("ids", "expected"),
    [
        (FULL, RowLayout(28, False, False, 2, False)),
        (PADDED, RowLayout(23, True, False, 3, False)),
        (PACKED, RowLayout(25, True, True, 6, False)),
        (HOLES, RowLayout(8, True, True, 9, True)),
        (torch.zeros(2, 3, dtype=torch.long), RowLayout(0, True, False, 2, False)),
    ],
)
def test_facts_of_a_layout(ids, expected):
    assert RowLayout.of_ids(ids) == expected


def test_host_and_encoder_agree_on_any_ids():
    torch.manual_seed(0)
    for _ in range(200):
        ids = torch.randint(1, 4, (3, 7)).sort(1).values
        ids = ids.masked_fill(torch.rand(3, 7) < torch.rand(()) - 0.3, 0)
        known, seen = RowLayout.of_ids(ids), SeenLayout.of_ids(ids)
        assert [getattr(known, name) for name in FACTS] == [getattr(seen, name) for name in FACTS]
        with_layout, without = Segments.of_ids(ids, known), Segments.of_ids(ids)
        for name in ("ids", "position_ids", "valid", "attention_mask"):
            one, other = getattr(with_layout, name), getattr(without, name)
            assert one is other if other is None else torch.equal(one, other)


def test_the_layout_goes_where_the_batch_goes():
    built = batch(PACKED)
    assert built.layout == RowLayout.of_ids(PACKED)
    # On a device without values only what the host knows is left.
    assert built.to(torch.device("meta")).layout == built.layout


def test_a_batch_without_values_has_no_layout():
    shapes = dataclasses.replace(batch(segment_ids((3,), length=4)), layout=None)
    moved = dataclasses.replace(shapes, layout=None).to(torch.device("meta"))
    assert dataclasses.replace(moved, layout=None).layout is None
