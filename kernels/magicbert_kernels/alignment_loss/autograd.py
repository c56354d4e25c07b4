"""The Triton alignment sums as a differentiable function of the outputs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from magicbert_kernels.alignment_loss.kernel import launch_backward, launch_forward, num_tiles


class AlignmentSums(torch.autograd.Function):
    """Forward keeps its inputs; backward recomputes the difference and writes each gradient once.

    Keeping the inputs costs no more traffic than storing an unscaled gradient in the forward and
    scaling it in the backward (5 passes over the blocks either way), and the gradient is rounded
    to low precision once instead of twice.
    """

    @staticmethod
    def forward(ctx: Any, valid: Tensor | None, num_blocks: int, *blocks: Tensor) -> Tensor:
        """Returns fp32 ``[num_blocks]`` for contiguous ``[P, D]`` outputs, then as many anchors."""
        outputs, anchors = blocks[:num_blocks], blocks[num_blocks:]
        ctx.save_for_backward(valid, *blocks)
        partial_sums = torch.empty(
            num_blocks, num_tiles(*outputs[0].shape), dtype=torch.float32, device=outputs[0].device
        )
        if partial_sums.numel():
            launch_forward(outputs, anchors, valid, partial_sums)
        return partial_sums.sum(dim=1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, sums_gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Returns gradients for the outputs; the anchors are constants."""
        valid, *blocks = ctx.saved_tensors
        num_blocks = len(blocks) // 2
        outputs, anchors = blocks[:num_blocks], blocks[num_blocks:]
        gradients = [torch.empty_like(output) for output in outputs]
        if outputs[0].numel():
            launch_backward(outputs, anchors, valid, sums_gradient.contiguous(), gradients)
        return (None, None, *gradients, *(None for _ in anchors))


def alignment_sums_triton(
    outputs: Sequence[Tensor], anchors: Sequence[Tensor], valid: Tensor | None
) -> Tensor:
    """Returns fp32 ``[num_blocks]``; see `magicbert_kernels.alignment_loss.alignment_sums`."""
    num_features = outputs[0].shape[-1]
    flat_outputs = [tensor.reshape(-1, num_features).contiguous() for tensor in outputs]
    flat_anchors = [tensor.detach().reshape(-1, num_features).contiguous() for tensor in anchors]
    flat_valid = None if valid is None else valid.reshape(-1).contiguous()
    sums = AlignmentSums.apply(flat_valid, len(outputs), *flat_outputs, *flat_anchors)  # type: ignore[no-untyped-call]
    return cast(Tensor, sums)
