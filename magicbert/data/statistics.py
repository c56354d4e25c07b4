"""What can be predicted without a model: the entropy of the predicted tokens."""

from __future__ import annotations

import torch

from magicbert.data.source import TokenSource


def masked_unigram_entropy(source: TokenSource, num_batches: int) -> float:
    """Returns the entropy of the masked tokens of the dev batches, in nats.

    It is the lowest loss of a model that ignores its input and knows the distribution of these
    very targets, so a trained model must fall well below it.
    """
    labels = torch.cat([batch.labels for batch in source.dev_batches(num_batches)])
    counts = torch.bincount(labels).double()
    shares = counts[counts > 0] / counts.sum()
    return float(-(shares * shares.log()).sum())
