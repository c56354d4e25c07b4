"""What the operators of a block cost, and which of its paths compete in which bin."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from magicbert.bert.block_supernet import named_at
from magicbert.bert.cost import bert_cost_model
from magicbert.bert.modeling.configuration_magicbert import MagicBertConfig
from magicbert.compression.bins import PoolCosts, bin_numbers
from magicbert.compression.shrinking import Candidates
from magicbert.space import Cost, CostModel
from magicbert.space.blocks import BlockSpace

Costs = npt.NDArray[np.float64]


def block_costs(
    space: BlockSpace, config: MagicBertConfig, head_size: int, length: int
) -> CostModel:
    """Returns the cost of every operator of a block at every width, under its full name.

    Args:
        space: the block's choices.
        config: what operators read beside their width.
        head_size: width of an attention head.
        length: tokens of a row.
    """
    names = [named_at(name, width, head_size) for width in space.widths for name in space.operators]
    return CostModel(bert_cost_model(config, names, length).operators, Cost())


def cost_table(space: BlockSpace, costs: CostModel, head_size: int) -> Costs:
    """Returns parameters and FLOPs of every operator at every width.

    Returns:
        ``[widths, operators + 1, 2]``; the identity, the last one, costs nothing.
    """
    table = np.zeros((len(space.widths), len(space.operators) + 1, 2))
    for row, width in enumerate(space.widths):
        for column, name in enumerate(space.operators):
            cost = costs.of_operator(named_at(name, width, head_size))
            table[row, column] = cost.parameters, cost.flops
    return table


def block_candidates(
    space: BlockSpace, costs: CostModel, head_size: int, num_bins: int
) -> Candidates:
    """Returns the paths of a block whose size and FLOPs fall into one bin, with these bins."""
    table = cost_table(space, costs, head_size)
    of_paths = PoolCosts.of(space.paths, table[..., 0], table[..., 1])
    bins = bin_numbers(of_paths, num_bins)
    return Candidates(space.paths.kept(bins >= 0), bins[bins >= 0])
