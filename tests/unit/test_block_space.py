from __future__ import annotations

import numpy as np
import pytest

from magicbert.errors import UserError
from magicbert.space import Architecture
from magicbert.space.blocks import BlockSpace, count_models
from magicbert.space.pool import Pool
from magicbert.space.randomness import keyed_generator

NAS_BERT = BlockSpace((128, 192, 256, 384, 512), ("mha", "ffn", "conv3", "conv5", "conv7"), 6)
SMALL = BlockSpace((16, 24), ("mha", "ffn"), 3)


def test_the_counts_of_nas_bert() -> None:
    assert NAS_BERT.product.count() == 5 * 6**6 == 233_280
    assert NAS_BERT.count() == NAS_BERT.paths.count() == 97_650
    assert count_models([NAS_BERT] * 4) == 97_650**4


def test_paths_end_in_their_identities() -> None:
    listed = list(SMALL.paths.enumerate())
    assert len(listed) == len(set(listed)) == SMALL.count() == 2 * (2 + 4 + 8)
    for path in listed:
        operators = [name for name in path.operators[1:] if name != "skip"]
        assert operators
        assert path.operators[1:] == (*operators, *("skip",) * (3 - len(operators)))
    for text in ("w16-skip-mha-ffn", "w16-mha-skip-ffn", "w16-skip-skip-skip"):
        assert Architecture.parse(text) in SMALL.product
        assert Architecture.parse(text) not in SMALL.paths


def test_parsing_a_path() -> None:
    assert SMALL.parse(Architecture.parse("w24-mha-ffn-skip")) == (24, ("mha", "ffn"))
    for text in ("w24-skip-ffn-skip", "w32-mha-ffn-skip", "w24-mha-ffn"):
        with pytest.raises(UserError, match="no path of the block"):
            SMALL.parse(Architecture.parse(text))


def test_drawing_is_uniform_over_the_paths() -> None:
    pool = SMALL.paths
    draws = [pool.sample(keyed_generator(3, "draw", index)) for index in range(2800)]
    counts = np.array([draws.count(path) for path in pool.enumerate()])
    assert counts.sum() == 2800
    # 27 degrees of freedom: the 99.9% quantile of chi-square is 55.5.
    assert ((counts - 100) ** 2 / 100).sum() < 55.5


def test_distances_and_parts_of_a_pool() -> None:
    pool = SMALL.paths
    path = Architecture.parse("w16-mha-ffn-skip")
    assert pool.distances(path).tolist() == [path.distance(one) for one in pool.enumerate()]
    half = pool.kept(np.arange(pool.count()) % 2 == 0)
    assert [half[number] for number in range(3)] == [pool[0], pool[2], pool[4]]
    assert pool[0] in half
    assert pool[1] not in half
    assert list(pool.of([pool[5], pool[1]]).enumerate()) == [pool[1], pool[5]]
    with pytest.raises(UserError, match="must not be empty"):
        pool.kept(np.zeros(pool.count(), dtype=bool))


def test_the_whole_of_a_product_space_is_in_its_order() -> None:
    assert list(Pool.whole(SMALL.product).enumerate()) == list(SMALL.product.enumerate())


@pytest.mark.parametrize(
    ("widths", "operators", "num_layers"),
    [((), ("ffn",), 1), ((16,), (), 1), ((16,), ("ffn",), 0), ((16,), ("ffn", "skip"), 1)],
)
def test_a_block_that_holds_nothing_is_refused(widths, operators, num_layers) -> None:
    with pytest.raises(UserError, match="block"):
        BlockSpace(widths, operators, num_layers)
