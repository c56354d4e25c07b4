"""The alignment sums in plain PyTorch: what kernel and ``torch`` backend must equal."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def alignment_sums_reference(
    outputs: Sequence[Tensor], anchors: Sequence[Tensor], valid: Tensor | None
) -> Tensor:
    """Returns ``[num_blocks]`` in fp32 (fp64 for fp64 inputs); see `alignment_sums`."""
    return torch.stack(
        [block_sum(out, anchor, valid) for out, anchor in zip(outputs, anchors, strict=True)]
    )


def block_sum(output: Tensor, anchor: Tensor, valid: Tensor | None) -> Tensor:
    """Returns the sum over valid positions of the mean over features of ``(output - anchor)^2``."""
    wide = torch.promote_types(output.dtype, torch.float32)
    difference = output.to(wide) - anchor.detach().to(wide)
    if valid is not None:
        # Before squaring, not after: a NaN at an invalid position must not reach the gradient.
        difference = torch.where(valid[..., None], difference, 0.0)
    return difference.square().sum() / output.shape[-1]


def check_inputs(
    outputs: Sequence[Tensor], anchors: Sequence[Tensor], valid: Tensor | None
) -> None:
    """Raises ``ValueError`` unless all blocks share one shape, type and device."""
    if not outputs or len(outputs) != len(anchors):
        raise ValueError(f"got {len(outputs)} outputs and {len(anchors)} anchors")
    first = outputs[0]
    for tensor in (*outputs, *anchors):
        if (tensor.shape, tensor.dtype, tensor.device) != (first.shape, first.dtype, first.device):
            raise ValueError(
                f"blocks differ: {tuple(first.shape)} {first.dtype} on {first.device} and "
                f"{tuple(tensor.shape)} {tensor.dtype} on {tensor.device}"
            )
    if valid is not None and (valid.shape, valid.dtype) != (first.shape[:-1], torch.bool):
        raise ValueError(
            f"valid must be bool {tuple(first.shape[:-1])}, got {valid.dtype} {tuple(valid.shape)}"
        )
