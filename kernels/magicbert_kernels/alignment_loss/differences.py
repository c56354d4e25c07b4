"""The alignment sums in plain PyTorch with the difference kept: the ``torch`` backend.

Autograd over the reference keeps a tensor per step of the formula and walks over each of them
again. Here a block costs one pass that writes the difference, one that reads it into norms, and
one in the backward that scales it: the gradient *is* the difference, up to a factor.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


class BlockSum(torch.autograd.Function):
    """One block's sum; see `magicbert_kernels.alignment_loss.alignment_sums`."""

    @staticmethod
    def forward(ctx: Any, output: Tensor, anchor: Tensor, valid: Tensor | None) -> Tensor:
        """Returns the sum over valid positions of the mean square of the difference."""
        wide = torch.promote_types(output.dtype, torch.float32)
        difference = output.to(wide) - anchor.to(wide)
        if valid is not None:
            # Filled, not multiplied: what stands at an invalid position may be NaN.
            difference.masked_fill_(~valid[..., None], 0.0)
        ctx.save_for_backward(difference)
        ctx.dtype = output.dtype
        # Norms by position first: a sum of positions is as exact as it needs to be in fp32.
        squares: Tensor = torch.linalg.vector_norm(difference, dim=-1).square()
        return squares.sum() / output.shape[-1]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        """Scales the difference."""
        (difference,) = ctx.saved_tensors
        scaled = difference * (2.0 * gradients[0] / difference.shape[-1])
        return scaled.to(ctx.dtype), None, None


def alignment_sums_of_differences(
    outputs: Sequence[Tensor], anchors: Sequence[Tensor], valid: Tensor | None
) -> Tensor:
    """Returns ``[num_blocks]`` in fp32 (fp64 for fp64 inputs); see `alignment_sums`."""
    sums = [
        BlockSum.apply(output, anchor.detach(), valid)  # type: ignore[no-untyped-call]
        for output, anchor in zip(outputs, anchors, strict=True)
    ]
    return torch.stack(cast(list[Tensor], sums))
