"""What BERT operators cost, counted on modules without memory."""

from __future__ import annotations

import itertools
from collections.abc import Iterable

import torch
from torch import nn

from magicbert.bert.modeling.configuration_magicbert import MagicBertConfig
from magicbert.bert.modeling.embeddings import Embeddings
from magicbert.bert.modeling.operators import build_operator
from magicbert.bert.spaces import outline_of
from magicbert.space import Architecture, SearchSpace
from magicbert.space.cost import Cost, CostModel


def bert_cost_model(config: MagicBertConfig, operators: Iterable[str], length: int) -> CostModel:
    """Returns the cost of an encoder: embeddings and layers, without any head.

    Parameters are exact. FLOPs are those of the matrix products, attention and convolutions of one
    forward of one row; norms, activations and look-ups are left out.

    Args:
        config: sizes of the encoder.
        operators: names that the model must know. Those of an architecture may change the width of
            the stream: its borders then count as fixed, and the model is right for it alone.
        length: positions of the row, all valid.
    """
    names = tuple(dict.fromkeys(operators))
    with torch.device("meta"):
        modules = {name: build_operator(name, config) for name in names}
    costs = {
        name: Cost(num_parameters(module), float(module.flops(length)))
        for name, module in modules.items()
    }
    if not isinstance(operators, Architecture):
        return CostModel(costs, embedding_cost(config, length))
    outline = outline_of(SearchSpace.of(operators), config)
    borders = (border_cost(*pair, length) for pair in itertools.pairwise(outline.widths))
    return CostModel(costs, sum(borders, start=embedding_cost(outline, length)))


def embedding_cost(config: MagicBertConfig, length: int) -> Cost:
    """Returns the cost of the tables, their norm, and their projection if there is one."""
    with torch.device("meta"):
        embeddings = Embeddings(config)
    table_size, entry_size = config.table_size, config.entry_size
    flops = 0 if table_size == entry_size else 2 * length * table_size * entry_size
    return Cost(num_parameters(embeddings), float(flops))


def border_cost(from_size: int, to_size: int, length: int) -> Cost:
    """Returns the cost of the learned map between two widths; nothing where they are equal."""
    if from_size == to_size:
        return Cost()
    return Cost((from_size + 1) * to_size, 2.0 * length * from_size * to_size)


def num_parameters(module: nn.Module) -> int:
    """Returns the number of trained values."""
    return sum(parameter.numel() for parameter in module.parameters())
