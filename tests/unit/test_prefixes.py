"""The tree of prefixes: how many there are, and how ranks share the paths."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from magicbert.space import Architecture
from magicbert.supernet.prefixes import Branch, common_length, num_prefixes, rank_shares

LAYERS, NAMES = 5, ("a", "b", "c")
PATHS = st.lists(
    st.tuples(*[st.sampled_from(NAMES)] * LAYERS).map(Architecture), min_size=0, max_size=60
)


def distinct_prefixes(paths) -> int:
    return len({path.operators[:depth] for path in paths for depth in range(1, len(path) + 1)})


def test_a_whole_block_has_the_counts_of_the_issue():
    block = [Architecture(names) for names in product("abcd", repeat=6)]
    assert num_prefixes(block) == 4 + 4**2 + 4**3 + 4**4 + 4**5 + 4**6 == 5460
    assert len(block) * 6 / num_prefixes(block) == pytest.approx(4.50, abs=0.005)


@given(PATHS)
def test_prefixes_are_counted_once(paths):
    assert num_prefixes(paths) == distinct_prefixes(paths)


@given(PATHS)
def test_the_leaves_of_the_tree_are_the_paths(paths):
    def leaves(branch: Branch):
        if branch.is_leaf:
            assert branch.paths == (Architecture(branch.prefix),)
            yield branch.paths[0]
            return
        for child in branch.children():
            assert child.depth == branch.depth + 1
            yield from leaves(child)

    root = Branch.whole(paths)
    assert (list(leaves(root)) if root.paths else []) == sorted(set(paths))


@given(PATHS, st.integers(1, 7))
def test_shares_are_disjoint_and_together_the_whole(paths, num_ranks):
    shares = rank_shares(paths, num_ranks)
    assert len(shares) == num_ranks
    assert [path for share in shares for path in share] == sorted(set(paths))
    assert shares == rank_shares(list(reversed(paths)), num_ranks)


@given(st.lists(st.tuples(*[st.sampled_from("ab")] * 3).map(Architecture), max_size=8))
def test_no_other_cut_has_a_smaller_largest_share(paths):
    ordered = sorted(set(paths))
    cuts = [(ordered[:i], ordered[i:]) for i in range(len(ordered) + 1)]
    least = min(max(map(num_prefixes, cut)) for cut in cuts)
    assert max(map(num_prefixes, rank_shares(paths, 2))) == least


def test_ranks_get_almost_equal_work():
    paths = [Architecture(names) for names in product("abcd", repeat=6)]
    sizes = [num_prefixes(share) for share in rank_shares(paths, 8)]
    assert sum(sizes) - num_prefixes(paths) < 8 * 6  # what is shared across a cut is run twice
    assert max(sizes) <= num_prefixes(paths) / 8 + 6


def test_common_length():
    one = Architecture(("a", "b", "c"))
    assert [common_length(one, Architecture(tuple(o))) for o in ("abc", "abb", "bbc")] == [3, 2, 0]
