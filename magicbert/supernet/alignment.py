"""MAGIC-A's loss: block outputs of the sampled path are drawn to those of an anchor path."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from magicbert_kernels import alignment_loss
from magicbert_kernels.backend import BackendError, resolve_backend
from torch import Tensor

from magicbert.errors import UserError


def alignment_backend(requested: str, device: torch.device) -> Literal["triton", "torch"]:
    """Returns the kernels' backend for a device; to be called once, before training.

    Raises:
        UserError: the backend was asked for by name and cannot run there.
    """
    try:
        return resolve_backend(requested, device)
    except BackendError as error:
        raise UserError(f"training.backend: {error}") from error


def alignment_sums(
    outputs: Sequence[Tensor],
    anchors: Sequence[Tensor],
    valid: Tensor | None,
    backend: Literal["triton", "torch"],
    expected_gradient: float = 1.0,
) -> Tensor:
    """Returns per block the sum over valid positions of the mean squared difference of features.

    Divided by the global number of valid positions it is the block's MSE. Gradients go to the
    outputs alone: the anchor's side is a constant (stop-gradient).

    Args:
        outputs: block outputs of the sampled path, each ``[..., features]``.
        anchors: block outputs of the anchor on the same batch, same shapes.
        valid: bool ``[...]``, positions that count; ``None`` = all.
        backend: as `alignment_backend` returned it.
        expected_gradient: gradient that each sum will receive, see `sums_gradient`: the kernel
            writes the outputs' gradients in the forward. Another one costs time, not exactness.

    Returns:
        fp32 ``[num_blocks]``.
    """
    return alignment_loss.alignment_sums(
        outputs, anchors, valid, backend, expected_gradient=expected_gradient
    )


def sums_gradient(
    form: Literal["mean", "sum"],
    num_blocks: int,
    num_positions: int,
    weight: float,
    loss_scale: float,
) -> float:
    """Returns the gradient of each block's sum in ``weight * combine_blocks(sums / positions)``.

    Args:
        form: of the combination.
        num_blocks: aligned blocks.
        num_positions: what the sums are divided by.
        weight: of the alignment loss.
        loss_scale: gradient of the whole loss; not 1 in fp16.
    """
    share = num_blocks if form == "mean" else 1
    return loss_scale * weight / (share * num_positions)


def combine_blocks(sums: Tensor, form: Literal["mean", "sum"]) -> Tensor:
    """Returns one scalar from the blocks' sums: their mean, or the sum printed in MAGIC Eq. (5)."""
    return sums.mean() if form == "mean" else sums.sum()
