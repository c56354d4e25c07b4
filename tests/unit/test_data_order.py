from __future__ import annotations

import numpy as np
import pytest

from magicbert.data.order import RowOrder


@pytest.mark.parametrize("num_rows", [1, 2, 3, 7, 64, 1000, 4097])
def test_every_epoch_is_a_permutation(num_rows: int) -> None:
    epochs, rows = RowOrder(num_rows, seed=3).locate(np.arange(3 * num_rows))

    assert epochs.tolist() == np.repeat([0, 1, 2], num_rows).tolist()
    for epoch in range(3):
        assert sorted(rows[epochs == epoch]) == list(range(num_rows))


def test_epochs_and_seeds_give_different_orders() -> None:
    positions = np.arange(2000)
    first, second = RowOrder(1000, seed=0), RowOrder(1000, seed=1)
    rows = first.locate(positions)[1]

    assert not np.array_equal(rows[:1000], rows[1000:])
    assert (rows[:1000] == second.locate(positions)[1][:1000]).sum() < 10
    assert np.abs(np.diff(rows[:1000])).mean() == pytest.approx(1000 / 3, rel=0.1)


def test_a_position_does_not_depend_on_what_is_asked_with_it() -> None:
    order = RowOrder(777, seed=5)
    positions = np.arange(2000)
    together = order.locate(positions)[1]

    assert together.tolist() == [int(order.locate(positions[i : i + 1])[1][0]) for i in range(2000)]
    assert np.array_equal(order.locate(positions[::-1])[1], together[::-1])


def test_first_rows_of_epochs_are_uniform() -> None:
    # 20,000 epochs over 10 rows: each count is binomial with sigma 42; 5 sigma on 10 of them.
    rows = RowOrder(10, seed=0).locate(np.arange(20_000) * 10)[1]

    assert np.abs(np.bincount(rows, minlength=10) - 2000).max() < 5 * 42.5
