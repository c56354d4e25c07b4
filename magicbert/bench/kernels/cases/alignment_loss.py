"""The block-wise alignment loss: a path's block outputs against an anchor's, valid tokens only."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import torch
from magicbert_kernels.alignment_loss import alignment_sums, alignment_sums_reference
from torch import Tensor

from magicbert.bench.kernels.compiled import compiled
from magicbert.bench.kernels.family import Family, Place
from magicbert.bench.kernels.operation import Function, Inputs, Operation
from magicbert.bench.kernels.sizes import Size
from magicbert.bench.registry import OWN, Floor

NUM_BLOCKS = 4
SHARE_VALID = 0.9


def operation(place: Place) -> Operation:
    """Returns the loss of all blocks and its gradient: three passes over the blocks."""
    floor = Floor(bytes=3 * NUM_BLOCKS * place.size.pass_bytes)
    return Operation(
        draw=functools.partial(draw, place.size, place.device),
        reference=alignment_sums_reference,
        differentiated=("outputs",),
        floors={"forward and backward": floor},
        is_loss=True,
        plain=masked_errors,
    )


def draw(size: Size, device: torch.device, seed: int) -> Inputs:
    """Returns outputs near their anchors, and which tokens count."""
    generator = torch.Generator(device).manual_seed(seed)

    def noise() -> Tensor:
        return torch.randn(size.shape, generator=generator, device=device)

    anchors = [noise() for _ in range(NUM_BLOCKS)]
    outputs = [(anchor + 0.5 * noise()).to(size.dtype).requires_grad_() for anchor in anchors]
    valid = torch.rand(size.shape[:2], generator=generator, device=device) < SHARE_VALID
    return {"outputs": outputs, "anchors": [a.to(size.dtype) for a in anchors], "valid": valid}


def rivals(place: Place) -> Mapping[str, Callable[[], Function]]:
    """Returns who computes it."""
    return {
        OWN: lambda: functools.partial(alignment_sums, backend=place.backend),
        "eager": lambda: masked_errors,
        "F.mse_loss": lambda: masked_mse_loss,
        "torch.compile": compiled(masked_errors, place.device),
    }


def masked_errors(outputs: list[Tensor], anchors: list[Tensor], valid: Tensor) -> Tensor:
    """Returns the sums as one would write them."""
    return torch.stack([
        ((output - anchor).float().square().mean(-1) * valid).sum()
        for output, anchor in zip(outputs, anchors, strict=True)
    ])  # fmt: skip


def masked_mse_loss(outputs: list[Tensor], anchors: list[Tensor], valid: Tensor) -> Any:
    """Returns the sums by torch's loss, element by element, then masked."""
    loss = functools.partial(torch.nn.functional.mse_loss, reduction="none")
    return torch.stack([
        (loss(output.float(), anchor.float()).mean(-1) * valid).sum()
        for output, anchor in zip(outputs, anchors, strict=True)
    ])  # fmt: skip


FAMILY = Family(
    "alignment loss",
    ("forward and backward",),
    operation,
    rivals,
    {"forward and backward": ("alignment_loss",)},
)
