"""What the operators of a block cost, and which of its paths compete in which bin."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from magicbert.bert.block_supernet import named_at
from magicbert.bert.cost import bert_cost_model
from magicbert.bert.modeling.configuration_magicbert import MagicBertConfig
from magicbert.compression.bins import PoolCosts, bin_numbers
from magicbert.compression.shrinking import Candidates
from magicbert.errors import UserError
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
    """Returns parameters, FLOPs and nanoseconds of every operator at every width.

    Returns:
        ``[widths, operators + 1, 3]``; the identity, the last one, costs nothing.
    """
    table = np.zeros((len(space.widths), len(space.operators) + 1, 3))
    for row, width in enumerate(space.widths):
        for column, name in enumerate(space.operators):
            cost = costs.of_operator(named_at(name, width, head_size))
            table[row, column] = cost.parameters, cost.flops, cost.latency_ns
    return table


def block_candidates(
    space: BlockSpace,
    costs: CostModel,
    head_size: int,
    num_bins: int,
    *,
    by_latency: bool = False,
) -> Candidates:
    """Returns the paths of a block that fall into one bin by two figures, with these bins.

    Args:
        space: the block's choices.
        costs: of the operators.
        head_size: width of an attention head.
        num_bins: B.
        by_latency: the second figure is the measured latency, which ``costs`` then hold; else it
            is the FLOPs.

    Raises:
        UserError: no path falls into one bin by both.
    """
    table = cost_table(space, costs, head_size)
    of_paths = PoolCosts.of(space.paths, table[..., 0], table[..., 2 if by_latency else 1])
    bins = bin_numbers(of_paths, num_bins)
    if not (bins >= 0).any():
        raise UserError(
            f"training.num_bins: by size and {'latency' if by_latency else 'FLOPs'} no path falls "
            f"into the same of {num_bins} bins; take fewer"
        )
    return Candidates(space.paths.kept(bins >= 0), bins[bins >= 0])
