"""All pairwise cosines of several gradients without ever holding the gradients.

With ``g_i`` the gradient of path i, cut into one part per parameter tensor,

    <g_i, g_j> = sum over tensors of <g_i part, g_j part>

so the G x G matrix of inner products (Gram matrix) is added up tensor by tensor: memory is that of
one tensor's G gradients, and each pair costs no pass of its own over the numbers.
"""

from __future__ import annotations

import torch
from torch import Tensor


class GramMatrix:
    """Inner products of ``size`` vectors that arrive in parts.

    Args:
        size: G, number of vectors.

    Attributes:
        products: fp64 ``[G, G]`` on the host, the sum so far.
    """

    def __init__(self, size: int) -> None:
        self.products = torch.zeros(size, size, dtype=torch.float64)

    def add(self, parts: Tensor) -> None:
        """Adds one part of every vector.

        Args:
            parts: ``[G, numel]``; half precision is widened to fp32 first.
        """
        wide = parts if parts.dtype == torch.float64 else parts.float()
        self.products += (wide @ wide.T).double().cpu()

    def cosines(self) -> Tensor:
        """Returns fp64 ``[G, G]``; NaN in the row and column of a vector of length zero."""
        norms = self.products.diagonal().sqrt()
        return (self.products / norms / norms[:, None]).clamp(-1.0, 1.0)
