"""Architectures as values, search spaces, and what an architecture costs."""

from magicbert.space.architecture import Architecture
from magicbert.space.cost import Cost, CostModel, Limits
from magicbert.space.search_space import SearchSpace

__all__ = ["Architecture", "Cost", "CostModel", "Limits", "SearchSpace"]
