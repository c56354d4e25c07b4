"""The strategies by name; adding one is one file and one line here and in the section."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from magicbert.config.sections import SearchSection
from magicbert.search.choices import Choices
from magicbert.search.evolution import Evolution
from magicbert.search.halving import Halving
from magicbert.search.pool import ShrinkArchitectures
from magicbert.search.progressive import ShrinkOperators
from magicbert.search.random_search import RandomSearch
from magicbert.search.rounds import Strategy

STRATEGIES: Mapping[str, Callable[[Choices, SearchSection], Strategy]] = {
    "shrink-operators": ShrinkOperators,
    "shrink-architectures": ShrinkArchitectures,
    "evolution": Evolution,
    "halving": Halving,
    "random": RandomSearch,
}


def build_strategy(section: SearchSection, choices: Choices) -> Strategy:
    """Returns the strategy that the section names."""
    return STRATEGIES[section.strategy](choices, section)
