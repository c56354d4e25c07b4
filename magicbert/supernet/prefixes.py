"""Paths that begin alike: how many operator calls they need together, and how ranks share them.

Sorted paths are the leaves of a tree whose nodes are their prefixes. Run one by one, K paths of N
layers need K N operator calls; together they need one for each distinct prefix.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise, takewhile

from magicbert.space import Architecture


@dataclass(frozen=True, slots=True)
class Branch:
    """The paths that share a prefix.

    Attributes:
        prefix: the operators of the first layers.
        paths: all paths that begin with it, sorted, each once.
    """

    prefix: tuple[str, ...]
    paths: Sequence[Architecture]

    @classmethod
    def whole(cls, paths: Sequence[Architecture]) -> Branch:
        """Returns the root: every path begins with no operator."""
        return cls((), sorted(set(paths)))

    @property
    def depth(self) -> int:
        """Number of layers of the prefix, which is the number of the next layer (from 0)."""
        return len(self.prefix)

    @property
    def is_leaf(self) -> bool:
        """Whether the prefix is a whole path."""
        return len(self.paths[0]) == self.depth

    def children(self) -> Iterator[Branch]:
        """Yields the branches that are one operator longer, in the order of their names."""
        for name, paths in groupby(self.paths, key=lambda path: path[self.depth]):
            yield Branch((*self.prefix, name), tuple(paths))


def common_length(one: Architecture, other: Architecture) -> int:
    """Returns in how many first layers two paths agree."""
    pairs = zip(one, other, strict=True)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))


def num_prefixes(paths: Sequence[Architecture]) -> int:
    """Returns the number of distinct prefixes of all lengths from 1: operator calls together."""
    return sum(added_prefixes(sorted(set(paths))))


def added_prefixes(paths: Sequence[Architecture]) -> list[int]:
    """Returns how many prefixes each of some sorted paths adds to those before it."""
    if not paths:
        return []
    num_layers = len(paths[0])
    return [num_layers, *(num_layers - common_length(*pair) for pair in pairwise(paths))]


def rank_shares(
    paths: Sequence[Architecture], num_ranks: int
) -> tuple[tuple[Architecture, ...], ...]:
    """Returns the paths of each rank: a pure function, so that ranks need not talk about it.

    A share is a run of sorted paths, whole subtrees but for its two ends. Of all ways to cut the
    sorted paths into so many runs this is one whose largest number of prefixes is least.

    Args:
        paths: in any order; a path that is named twice is shared out once.
        num_ranks: number of shares; some are empty where there are fewer paths.
    """
    ordered = sorted(set(paths))
    added = added_prefixes(ordered)
    low, high = max(added, default=0), sum(added)
    while low < high:
        middle = (low + high) // 2
        if len(filled_up(ordered, added, middle)) <= num_ranks:
            high = middle
        else:
            low = middle + 1
    shares = filled_up(ordered, added, low)
    return (*shares, *((),) * (num_ranks - len(shares)))


def filled_up(
    paths: Sequence[Architecture], added: Sequence[int], most: int
) -> list[tuple[Architecture, ...]]:
    """Returns runs of sorted paths, each as long as ``most`` prefixes allow."""
    runs: list[list[Architecture]] = []
    size = most
    for path, num_added in zip(paths, added, strict=True):
        if size + num_added > most:
            # The first path of a run shares nothing within it.
            runs.append([])
            size = len(path)
        else:
            size += num_added
        runs[-1].append(path)
    return [tuple(run) for run in runs]
