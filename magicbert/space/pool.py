"""A listed set of architectures, for spaces that are no product of their layers' candidates."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from magicbert.errors import UserError
from magicbert.space.architecture import Architecture
from magicbert.space.search_space import SearchSpace

Numbers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Pool:
    """Some architectures of a product space, each as the numbers of its candidates.

    Attributes:
        space: the product around them.
        members: int64 ``[number, layers]``, distinct rows in lexicographic order; entry ``l`` is
            an index into ``space.layers[l]``.
    """

    space: SearchSpace
    members: Numbers

    def __post_init__(self) -> None:
        if not len(self.members):
            raise UserError("a pool of architectures must not be empty")

    @classmethod
    def whole(cls, space: SearchSpace) -> Pool:
        """Returns every architecture of a product space, which must be small enough to list."""
        sizes = [len(names) for names in space.layers]
        grid = np.indices(sizes).reshape(len(sizes), -1).T
        return cls(space, np.ascontiguousarray(grid, dtype=np.int64))

    def count(self) -> int:
        """Returns the number of members."""
        return len(self.members)

    def __getitem__(self, number: int) -> Architecture:
        indices = self.members[number].tolist()
        layers = zip(self.space.layers, indices, strict=True)
        return Architecture(tuple(names[index] for names, index in layers))

    def __contains__(self, architecture: object) -> bool:
        if architecture not in self.space:
            return False
        assert isinstance(architecture, Architecture)
        return self.keys_of(self.indices(architecture)[None])[0] in self.known_keys

    def enumerate(self) -> Iterator[Architecture]:
        """Yields the members in order."""
        return (self[number] for number in range(len(self.members)))

    def sample(self, generator: np.random.Generator) -> Architecture:
        """Draws one member uniformly."""
        return self[int(generator.integers(len(self.members)))]

    def kept(self, which: npt.NDArray[np.bool_] | Numbers) -> Pool:
        """Returns the pool of some members, given by a mask or by ascending numbers."""
        return Pool(self.space, self.members[which])

    def of(self, architectures: list[Architecture]) -> Pool:
        """Returns the pool of the given members of the space."""
        rows = sorted(tuple(self.indices(one).tolist()) for one in architectures)
        return Pool(self.space, np.array(rows, dtype=np.int64).reshape(-1, self.space.num_layers))

    def indices(self, architecture: Architecture) -> Numbers:
        """Returns the candidates' numbers of an architecture of the space, ``[layers]``."""
        self.space.check(architecture)
        layers = zip(self.space.layers, architecture, strict=True)
        return np.array([names.index(name) for names, name in layers], dtype=np.int64)

    def distances(self, architecture: Architecture) -> Numbers:
        """Returns in how many places each member differs from an architecture, ``[number]``."""
        differs: Numbers = (self.members != self.indices(architecture)).sum(1)
        return differs

    def keys_of(self, members: Numbers) -> Numbers:
        """Returns one whole number per row of indices; distinct rows have distinct ones."""
        keys = np.zeros(len(members), dtype=np.int64)
        for layer, names in enumerate(self.space.layers):
            keys = keys * len(names) + members[:, layer]
        return keys

    @cached_property
    def known_keys(self) -> frozenset[int]:
        """The keys of all members."""
        return frozenset(self.keys_of(self.members).tolist())
