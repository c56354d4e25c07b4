"""What BERT operators cost, counted on modules without memory."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn

from magicbert.bert.modeling.configuration_magicbert import MagicBertConfig
from magicbert.bert.modeling.embeddings import Embeddings
from magicbert.bert.modeling.operators import build_operator
from magicbert.space.cost import Cost, CostModel


def bert_cost_model(config: MagicBertConfig, operators: Iterable[str], length: int) -> CostModel:
    """Returns the cost of an encoder: embeddings and layers, without any head.

    Parameters are exact. FLOPs are those of the matrix products, attention and convolutions of one
    forward of one row; norms, activations and look-ups are left out.

    Args:
        config: sizes of the encoder.
        operators: names that the model must know.
        length: positions of the row, all valid.
    """
    with torch.device("meta"):
        embeddings = Embeddings(config)
        modules = {name: build_operator(name, config) for name in dict.fromkeys(operators)}
    costs = {
        name: Cost(num_parameters(module), float(module.flops(length)))
        for name, module in modules.items()
    }
    return CostModel(costs, Cost(num_parameters(embeddings), 0.0))


def num_parameters(module: nn.Module) -> int:
    """Returns the number of trained values."""
    return sum(parameter.numel() for parameter in module.parameters())
