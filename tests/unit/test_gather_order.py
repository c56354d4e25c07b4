"""Which weights travel in which message of a step at ZeRO stage 3."""

from __future__ import annotations

from magicbert.training.path_sparse.gathering_order import GatherOrder, pack

SIZES = {"shared": 4, "a": 3, "b": 3, "c": 9, "d": 1}


def test_owners_are_packed_in_order_up_to_the_limit() -> None:
    assert pack(["a", "b", "d"], SIZES, 7) == [("a", "b", "d")]
    assert pack(["a", "b", "d"], SIZES, 6) == [("a", "b"), ("d",)]
    assert pack([], SIZES, 6) == []


def test_an_owner_above_the_limit_travels_alone() -> None:
    assert pack(["a", "c", "d"], SIZES, 4) == [("a",), ("c",), ("d",)]
    assert pack(["a", "b"], SIZES, 0) == [("a",), ("b",)]


def test_the_anchors_messages_come_first() -> None:
    order = GatherOrder.of(["shared", "a", "b"], ["shared", "c"], SIZES, 7)
    assert order.chunks == (("shared",), ("c",), ("shared", "a"), ("b",))
    assert order.anchor == {"shared": 0, "c": 1}
    assert order.path == {"shared": 2, "a": 2, "b": 3}


def test_without_an_anchor_there_is_one_pass() -> None:
    order = GatherOrder.of(["shared", "a"], [], SIZES, 100)
    assert order.chunks == (("shared", "a"),)
    assert order.anchor == {}
