"""Model, batch and paths of the cases of ``bench search``, by device."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from magicbert.bench.search.populations import Population, evolution, uniform, whole_block
from magicbert.space import SearchSpace

KERNEL_SIZES = (3, 5)
ONE_BY_ONE = "one by one"
# How many times less the parts would take if each prefix ran once and nothing else cost anything.
IDEAL = "ideal with heads"


@dataclass(frozen=True, slots=True)
class ScoredModel:
    """A supernet and its dev batch.

    Attributes:
        hidden_size: width.
        num_heads: of the attention.
        vocabulary: tokens; with the width it decides what the head costs, which every path pays.
        rows: of the batch.
        length: of a row, all of it tokens.
    """

    hidden_size: int
    num_heads: int
    vocabulary: int
    rows: int
    length: int

    def space(self, num_layers: int) -> SearchSpace:
        """Returns the paper's four candidates in every layer."""
        convolutions = (f"conv{width}" for width in KERNEL_SIZES)
        return SearchSpace.uniform(num_layers, (f"mha{self.num_heads}", "ffn", *convolutions))


# A head over a vocabulary of BERT's size costs several operators at such a width: the CPU's model
# has a small one, so that what is compared is the paths' operators; one case has the large one.
MODELS = {
    "cpu": ScoredModel(hidden_size=256, num_heads=4, vocabulary=512, rows=2, length=64),
    "cuda": ScoredModel(hidden_size=768, num_heads=12, vocabulary=30522, rows=32, length=128),
}
STACKED = {"cpu": 16, "cuda": 8}
LARGE_VOCABULARY = 30522


@dataclass(frozen=True, slots=True)
class Asked:
    """What a case asks for.

    Attributes:
        name: of the case.
        num_layers: of the supernet.
        population: makes the paths of a space from a seed.
        prefix_layers: on a CPU, the paths behind a prefix of so many layers are timed.
        is_block: paths are compared with a teacher's hidden state, without a head.
        has_large_head: the vocabulary is BERT's.
    """

    name: str
    num_layers: int
    population: Callable[[SearchSpace, int], Population]
    prefix_layers: int
    is_block: bool = False
    has_large_head: bool = False


def ten_thousand(space: SearchSpace, seed: int) -> Population:
    """Returns 10,000 uniform paths."""
    return uniform(space, 10_000, seed)


BLOCK, UNIFORM, EVOLUTION = (
    "all paths of a block of 6 layers",
    "10,000 uniform paths",
    "evolution of 50 paths over 20 generations",
)
CASES = {
    "block": Asked(BLOCK, 6, lambda space, seed: whole_block(space), 2, is_block=True),
    "uniform-12": Asked(UNIFORM, 12, ten_thousand, 3),
    "uniform-24": Asked(UNIFORM, 24, ten_thousand, 4),
    "evolution": Asked(EVOLUTION, 12, evolution, 2),
    "uniform-12-head": Asked(UNIFORM, 12, ten_thousand, 4, has_large_head=True),
}
