from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from magicbert.compression.block_table import BlockRow
from magicbert.compression.selection import Combination, Selection
from magicbert.errors import UserError
from magicbert.space import Architecture, Cost, Limits

WIDTHS = (8, 16, 24)


def entry(width: int) -> Cost:
    return Cost(100 + 3 * width, 7.0 * width, 11 * width)


def leave(width: int) -> Cost:
    return Cost(latency_ns=5 * width)


def border(before: int, after: int) -> Cost:
    return Cost() if before == after else Cost(before * after, 2.0 * before * after, before + after)


def row(
    number: int, width: int, parameters: int, flops: float, loss: float, latency: int = 0
) -> BlockRow:
    path = Architecture((f"w{width}", f"op{number}"))
    return BlockRow(path, (f"op{number}w{width}",), parameters, flops, loss, 0, latency)


def tables(seed: int, sizes: Sequence[int]) -> list[list[BlockRow]]:
    """Losses are eighths, so that their sums are exact in any order."""
    generator = np.random.default_rng(seed)
    return [
        [
            row(
                number,
                WIDTHS[generator.integers(3)],
                int(generator.integers(10, 2000)),
                float(generator.integers(10, 5000)),
                float(generator.integers(0, 40)) / 8,
                int(generator.integers(10, 900)),
            )
            for number in range(size)
        ]
        for size in sizes
    ]


def every_combination(blocks: list[list[BlockRow]]) -> list[Combination]:
    found = []
    for numbers in itertools.product(*(range(len(table)) for table in blocks)):
        rows = [table[number] for table, number in zip(blocks, numbers, strict=True)]
        widths = [int(one.path[0][1:]) for one in rows]
        costs = (Cost(one.parameters, one.flops, one.latency_ns) for one in rows)
        cost = sum(costs, start=entry(widths[0]) + leave(widths[-1]))
        cost = sum((border(*pair) for pair in itertools.pairwise(widths)), start=cost)
        found.append(Combination(numbers, sum(one.loss for one in rows), cost))
    return sorted(found, key=lambda one: (one.loss, one.rows))


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    sizes=st.lists(st.integers(1, 6), min_size=1, max_size=5),
    share=st.sampled_from([0.0, 0.3, 0.6, 0.9]),
    number=st.integers(1, 12),
)
def test_the_selection_is_that_of_all_combinations(
    seed: int, sizes: list[int], share: float, number: int
) -> None:
    blocks = tables(seed, sizes)
    every = every_combination(blocks)
    at = int(share * (len(every) - 1))
    by_size = sorted(one.cost.parameters for one in every)
    by_flops = sorted(one.cost.flops for one in every)
    by_latency = sorted(one.cost.latency_ms for one in every)
    limits = Limits(
        by_size[-1 - at],
        by_size[0] if share < 0.5 else 0,
        by_flops[-1 - at // 2],
        by_latency[-1 - at // 3] if seed % 2 else 0.0,
    )
    admitted = [one for one in every if limits.admits(one.cost)]
    selection = Selection(blocks, entry, border, limits, leave)
    if not admitted:
        with pytest.raises(UserError, match="no combination"):
            selection.best(number)
        return
    assert selection.best(number) == admitted[:number]


def test_four_tables_of_a_hundred_rows() -> None:
    """The paper's 1e8 combinations; loss and size pull against each other, as they do."""
    generator = np.random.default_rng(0)
    blocks = []
    for _ in range(4):
        sizes = generator.integers(100_000, 12_000_000, 100)
        losses = 2.0 - 0.1 * np.log(sizes) + generator.normal(0, 0.02, 100)
        blocks.append(
            [
                row(n, WIDTHS[n % 3], int(size), 2.0 * size, float(loss))
                for n, (size, loss) in enumerate(zip(sizes, losses, strict=True))
            ]
        )
    limits = Limits(max_parameters=10_000_000)
    best = Selection(blocks, entry, border, limits).best(100)
    assert len({one.rows for one in best}) == 100
    assert all(limits.admits(one.cost) for one in best)
    assert [one.loss for one in best] == sorted(one.loss for one in best)
    # No single row of the winner can be replaced for the better.
    winner = best[0]
    for block, table in enumerate(blocks):
        for number, other in enumerate(table):
            gain = table[winner.rows[block]].loss - other.loss
            if gain > 1e-9:
                changed = [*winner.rows]
                changed[block] = number
                rows = [blocks[at][n] for at, n in enumerate(changed)]
                widths = [int(one.path[0][1:]) for one in rows]
                size = sum(one.parameters for one in rows) + entry(widths[0]).parameters
                size += sum(border(*pair).parameters for pair in itertools.pairwise(widths))
                assert size > limits.max_parameters


def test_limits_out_of_reach_name_what_there_is() -> None:
    blocks = [[row(0, 8, 50, 9.0, 1.0), row(1, 16, 70, 8.0, 1.0)]] * 2
    smallest = 100 + 3 * 8 + 50 + 50
    largest = 100 + 3 * 16 + 70 + 8 * 16 + 50
    with pytest.raises(UserError, match=f"have {smallest} to {largest} parameters"):
        Selection(blocks, entry, border, Limits(max_parameters=100)).best(5)


def test_a_latency_out_of_reach_names_the_fastest() -> None:
    blocks = [[row(0, 8, 50, 9.0, 1.0, 4_000_000), row(1, 16, 70, 8.0, 1.0, 3_000_000)]] * 2
    limits = Limits(max_latency_ms=5.0)
    with pytest.raises(UserError, match=r"max_latency_ms 5\); .* take at least 6 ms"):
        Selection(blocks, entry, border, limits, leave).best(5)


def test_more_combinations_than_can_be_held_are_refused() -> None:
    blocks = tables(0, [300] * 6)
    with pytest.raises(UserError, match="keep_per_bin"):
        Selection(blocks, entry, border, Limits())
