"""Architectures as values, search spaces, and what an architecture costs."""

from magicbert.space.architecture import Architecture
from magicbert.space.search_space import SearchSpace

__all__ = ["Architecture", "SearchSpace"]
