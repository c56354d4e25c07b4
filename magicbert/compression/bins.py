"""Bins of size and latency, within which the paths of a block compete (NAS-BERT 3.2.2, 3.3)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from magicbert.space.pool import Pool

Numbers = npt.NDArray[np.int64]
Reals = npt.NDArray[np.float64]


@dataclass(frozen=True)
class PoolCosts:
    """What each member of a pool costs, borders and maps left out.

    Attributes:
        parameters: ``[members]``.
        latency: ``[members]``, in any unit that adds up over operators, FLOPs for one.
    """

    parameters: Reals
    latency: Reals

    @classmethod
    def of(cls, pool: Pool, parameters: Reals, latency: Reals) -> PoolCosts:
        """Adds up costs of operators.

        Args:
            pool: paths of a block, whose first choice is its width.
            parameters: ``[widths, operators]`` of each operator at each width.
            latency: the same.
        """
        widths, operators = pool.members[:, :1], pool.members[:, 1:]
        return cls(parameters[widths, operators].sum(1), latency[widths, operators].sum(1))


def bin_numbers(costs: PoolCosts, num_bins: int) -> Numbers:
    """Returns the bin (0..B-1) of each member; -1 = its size and its latency fall into two.

    Bin b holds what is above b/B and up to (b+1)/B of the largest member, in both figures; the
    paper removes what is not in the same bin by both.
    """
    by_size, by_latency = (
        np.maximum(np.ceil(figure / figure.max() * num_bins).astype(np.int64) - 1, 0)
        for figure in (costs.parameters, costs.latency)
    )
    return np.where(by_size == by_latency, by_size, -1)
