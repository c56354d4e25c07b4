"""Losses of rows of logits, and their gradient in place, in plain PyTorch.

Shape suffixes: M rows, P padded vocabulary, G groups of columns.
"""

from __future__ import annotations

import torch
from torch import Tensor

GROUP = 64


def differentiate_rows(
    logits_MP: Tensor,
    vocab_size: int,
    labels_M: Tensor,
    losses_M: Tensor,
    hits_M: Tensor,
    wants_gradient: bool,
) -> None:
    """Writes the losses, whether the largest logit is the label's, and ``softmax - one hot``.

    The loss is ``largest - log softmax[largest] - logit[label]``: the largest entry of a softmax is
    at least ``1 / V``, so its logarithm is safe whatever the logits are, and the logits can be
    overwritten before it is taken.

    Args:
        logits_MP: contiguous, its first ``vocab_size`` columns filled; overwritten.
        vocab_size: columns that count.
        labels_M: int64.
        losses_M: out.
        hits_M: out, 1 or 0.
        wants_gradient: else ``logits_MP`` holds nothing of use afterwards.
    """
    logits_MP[:, vocab_size:] = -torch.inf
    wide_MP = logits_MP.to(losses_M.dtype)
    largest_M, index_M = first_largest(wide_MP)
    own_M = wide_MP.gather(1, labels_M[:, None])[:, 0]
    torch.softmax(wide_MP, 1, out=wide_MP)
    peak_M = wide_MP.gather(1, index_M[:, None])[:, 0]
    torch.sub(largest_M - own_M, peak_M.log_(), out=losses_M)
    torch.eq(index_M, labels_M, out=hits_M)
    if wants_gradient:
        minus_one_M1 = wide_MP.new_full((len(labels_M), 1), -1.0)
        wide_MP.scatter_add_(1, labels_M[:, None], minus_one_M1)
        if wide_MP is not logits_MP:
            logits_MP.copy_(wide_MP)


def first_largest(values_MP: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the largest value of each row and the first column that holds it.

    In two steps, because on a CPU a maximum alone is vectorised and one with its place is not.
    """
    num_rows = len(values_MP)
    groups_MGC = values_MP.view(num_rows, -1, GROUP)
    largest_M, group_M = groups_MGC.amax(2).max(1)
    columns_MC = groups_MGC[torch.arange(num_rows, device=group_M.device), group_M]
    return largest_M, group_M * GROUP + columns_MC.argmax(1)
