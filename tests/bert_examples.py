"""Small BERT configurations, batches and supernets for tests."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from magicbert.bert.modeling.configuration_magicbert import MagicBertConfig
from magicbert.bert.supernet import BertSupernet
from magicbert.data.batch import TokenBatch
from magicbert.space import SearchSpace

OPERATORS = ("mha2", "mha4", "ffn", "ffn24", "conv3", "conv5x24")
VOCABULARY = 60
LENGTH = 14


def config(architecture: str = "", **sizes: object) -> MagicBertConfig:
    values = {
        "vocab_size": VOCABULARY, "hidden_size": 16, "max_position_embeddings": 20,
        "initializer_range": 0.2,
    }  # fmt: skip
    return MagicBertConfig(architecture=architecture, **(values | sizes))


def supernet(num_layers: int = 4, seed: int = 0, **sizes: object) -> BertSupernet:
    space = SearchSpace.uniform(num_layers, OPERATORS)
    return BertSupernet(space, config(**sizes), seed)


def randomise(module: nn.Module, seed: int = 0) -> nn.Module:
    """Fills everything with noise, norms and biases too: equal tests must see them."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(0.3 * noise + (1.0 if parameter.ndim == 1 else 0.0))
    return module


def segment_ids(*rows: tuple[int, ...], length: int = LENGTH) -> Tensor:
    """Builds ids from the lengths of the documents in each row; the rest is padding."""
    ids = torch.zeros(len(rows), length, dtype=torch.long)
    for row, lengths in zip(ids, rows, strict=True):
        start = 0
        for number, size in enumerate(lengths, 1):
            row[start : start + size] = number
            start += size
    return ids


FULL = segment_ids((LENGTH,), (LENGTH,))
PADDED = segment_ids((LENGTH,), (9,))
PACKED = segment_ids((5, 9), (4, 4, 3))


def batch(ids: Tensor, seed: int = 0, num_predicted: int = 6) -> TokenBatch:
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(1, VOCABULARY, ids.shape, generator=generator)
    valid = ids.flatten().nonzero().flatten()
    chosen = torch.randperm(len(valid), generator=generator)[:num_predicted]
    positions = valid[chosen].sort().values
    labels = torch.randint(1, VOCABULARY, positions.shape, generator=generator)
    return TokenBatch(tokens, ids, positions, labels, tuple(range(len(ids))))
