"""A small BERT supernet with every kind of operator, and batches of every kind for it."""

from __future__ import annotations

import torch

from magicbert.bert.supernet import BertSupernet, build_supernet
from magicbert.config.sections import ModelSection
from magicbert.data.batch import TokenBatch
from magicbert.space import SearchSpace

NAMES = ("mha2", "ffn", "conv3", "conv5")
SPACE = SearchSpace.uniform(4, NAMES)
ROWS, LENGTH, VOCABULARY = 3, 12, 40
FORMS = ("full", "padded", "packed", "packed and padded")


def build(dropout: float = 0.1, names: tuple[str, ...] = NAMES) -> BertSupernet:
    """Four layers of hidden size 16."""
    sizes = ModelSection(
        hidden_size=16, max_length=LENGTH, dropout=dropout, attention_dropout=dropout
    )
    return build_supernet(SearchSpace.uniform(4, names), sizes, VOCABULARY, 0, seed=3)


def batch(number: int, form: str) -> TokenBatch:
    """Batch ``number`` of one of `FORMS`; six predicted positions."""
    generator = torch.Generator().manual_seed(number)
    ids = torch.randint(1, VOCABULARY, (ROWS, LENGTH), generator=generator)
    segments = torch.ones_like(ids)
    if "packed" in form:
        segments[:, 3 + number % 5 :] = 2
    if "padded" in form:
        segments[0, LENGTH - 1 - number % 3 :] = 0
    positions = torch.randperm(ROWS * LENGTH, generator=generator)[:6].sort().values
    labels = torch.randint(1, VOCABULARY, (6,), generator=generator)
    return TokenBatch(ids, segments, positions, labels, (0, 1))
