"""Initial weights, as in the code lineage of NAS-BERT.

- embeddings, feed-forward layers and heads: N(0, ``initializer_range``), biases 0;
  positions may have a range of their own, ``position_initializer_range``;
- attention: Xavier-uniform per projection, gain 1/sqrt(2) for query, key and value, biases 0;
- convolutions: N(0, sqrt(4 (1 - dropout) / (kernel x channels))), biases 0;
- norms: scale 1, shift 0.

Every tensor is filled by one call of ``torch.nn.init``: transformers guards those, so that weights
just loaded are not overwritten.
"""

from __future__ import annotations

import math

from torch import nn


def initialize(module: nn.Module, std: float) -> None:
    """Initialises the parameters that a module owns itself, not those of its children.

    Args:
        module: any module of the encoder; one with a method ``initialize(std)`` decides itself.
        std: standard deviation of embeddings, feed-forward layers and heads.
    """
    own = getattr(module, "initialize", None)
    if callable(own):
        own(std)
    elif isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, std=std)
        nn.init.zeros_(module.bias)
    elif isinstance(module, nn.Embedding):
        nn.init.normal_(module.weight, std=std)
    elif isinstance(module, nn.LayerNorm):
        nn.init.ones_(module.weight)
        nn.init.zeros_(module.bias)


def convolution_std(kernel_size: int, channels: int, dropout: float) -> float:
    """Returns the standard deviation of a convolution's initial weights."""
    return math.sqrt(4.0 * (1.0 - dropout) / (kernel_size * channels))


def xavier_bound(fan_in: int, fan_out: int, gain: float) -> float:
    """Returns the bound of the Xavier-uniform distribution."""
    return gain * math.sqrt(6.0 / (fan_in + fan_out))
