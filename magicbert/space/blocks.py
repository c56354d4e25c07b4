"""NAS-BERT's space: blocks of layers, each with one width for all its layers (NAS-BERT 3.1, A.1).

A path of a block names its width and then one operator per layer, as in
``w128-mha-ffn-conv3-skip-skip-skip``: a product space, in which sampling, distances and scores are
those of any other. The identity makes a block shallower. Where it stands in a block changes no
model, so only paths that have it at the end are kept, with at least one operator ahead of it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from magicbert.errors import UserError
from magicbert.space.architecture import Architecture
from magicbert.space.pool import Pool
from magicbert.space.search_space import SearchSpace


@dataclass(frozen=True)
class BlockSpace:
    """The paths of one block.

    Attributes:
        widths: hidden sizes that the block may have.
        operators: operators that a layer may hold beside the identity.
        num_layers: most operators of a path.
        idle: name of the identity.
    """

    widths: tuple[int, ...]
    operators: tuple[str, ...]
    num_layers: int
    idle: str = "skip"

    def __post_init__(self) -> None:
        if not self.widths or not self.operators or self.num_layers < 1:
            raise UserError("a block needs at least one width, one operator and one layer")
        if self.idle in self.operators:
            raise UserError(f"{self.idle!r} is every block's identity; leave it out of operators")

    @property
    def product(self) -> SearchSpace:
        """The choices of a path, the width first, as if each were free of the others."""
        names = (*self.operators, self.idle)
        return SearchSpace((tuple(map(width_name, self.widths)), *(names,) * self.num_layers))

    def count(self) -> int:
        """Returns the number of paths that end in their identities and hold an operator."""
        depths = range(1, self.num_layers + 1)
        return len(self.widths) * sum(math.prod([len(self.operators)] * n) for n in depths)

    @cached_property
    def paths(self) -> Pool:
        """These paths, listed."""
        whole = Pool.whole(self.product)
        is_idle = whole.members[:, 1:] == len(self.operators)
        ends_idle = (np.maximum.accumulate(is_idle, axis=1) == is_idle).all(1)
        return whole.kept(ends_idle & ~is_idle[:, 0])

    def parse(self, path: Architecture) -> tuple[int, tuple[str, ...]]:
        """Returns the width and the operators of a path, without its identities.

        Raises:
            UserError: it is no path of this block.
        """
        if path not in self.paths:
            raise UserError(f"{path} is no path of the block: {self.product.layers}")
        width, *names = path
        return width_of_name(width), tuple(name for name in names if name != self.idle)


def width_name(width: int) -> str:
    """Names a width as the first choice of a block's path."""
    return f"w{width}"


def width_of_name(name: str) -> int:
    """Reads what `width_name` wrote."""
    return int(name.removeprefix("w"))


def count_models(blocks: Sequence[BlockSpace]) -> int:
    """Returns the number of models that the blocks' paths make."""
    return math.prod(block.count() for block in blocks)
