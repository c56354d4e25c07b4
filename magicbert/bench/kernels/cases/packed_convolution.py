"""The depthwise convolution on packed rows with padding: no other kernel is centred and packed."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import torch
from magicbert_kernels.depthwise_convolution import depthwise_convolution
from torch import Tensor
from torch.func import functional_call
from torch.nn import functional

from magicbert.bench.kernels.compiled import compiled
from magicbert.bench.kernels.family import Family, Place
from magicbert.bench.kernels.operation import Function, Inputs, Operation
from magicbert.bench.kernels.sizes import Size
from magicbert.bench.registry import OWN, Floor
from magicbert.bert.modeling.depthwise import DepthwiseConvolution
from magicbert.bert.modeling.segments import Segments

KERNEL_WIDTH = 3
# Share of a row where its second document begins, and where padding does.
SECOND, PADDING = 0.55, 0.95


def operation(place: Place) -> Operation:
    """Returns the operation: 5 passes, the ids are small beside them."""
    return Operation(
        draw=functools.partial(draw, place.size, place.device),
        reference=masked_shift_and_add,
        differentiated=("hidden", "weight", "bias"),
        floors={"forward and backward": Floor(bytes=5 * place.size.pass_bytes)},
    )


def draw(size: Size, device: torch.device, seed: int) -> Inputs:
    """Returns hidden states, filters, bias and segment ids."""
    generator = torch.Generator(device).manual_seed(seed)

    def noise(*shape: int) -> Tensor:
        values = torch.randn(shape, generator=generator, device=device)
        return values.to(size.dtype).requires_grad_()

    return {
        "hidden": noise(*size.shape),
        "weight": noise(KERNEL_WIDTH, size.width),
        "bias": noise(size.width),
        "segment_ids": segment_ids(size, device),
    }


def segment_ids(size: Size, device: torch.device) -> Tensor:
    """Returns two documents and some padding in every row, at limits that differ by row."""
    position = torch.arange(size.length, device=device)
    moved = torch.arange(size.rows, device=device)[:, None] % 7
    second, padding = (int(share * size.length) - moved for share in (SECOND, PADDING))
    return ((1 + (position >= second)) * (position < padding)).to(torch.int32)


def rivals(place: Place) -> Mapping[str, Callable[[], Function]]:
    """Returns who computes it."""
    return {
        OWN: lambda: kernel if place.backend == "triton" else EncoderConvolution(place.size),
        "masked shift and add": lambda: masked_shift_and_add,
        "torch.compile": compiled(masked_shift_and_add, place.device),
    }


def kernel(hidden: Tensor, weight: Tensor, bias: Tensor, segment_ids: Tensor) -> Tensor:
    """Returns it by magicbert's kernel."""
    return depthwise_convolution(hidden, weight, bias, segment_ids, backend="triton")


def masked_shift_and_add(
    hidden: Tensor, weight: Tensor, bias: Tensor, segment_ids: Tensor
) -> Tensor:
    """Returns it as a sum of shifted copies, each masked where it crosses a limit."""
    half, length = len(weight) // 2, hidden.shape[1]
    padded = functional.pad(hidden, (0, 0, half, half))
    ids = functional.pad(segment_ids, (half, half))
    total = bias.expand_as(hidden)
    for tap, filters in enumerate(weight):
        sees = (ids[:, tap : tap + length] == segment_ids) & (segment_ids > 0)
        total = total + padded[:, tap : tap + length] * (filters * sees[..., None])
    return total


class EncoderConvolution:
    """What the encoder runs where its kernels do not.

    Args:
        size: of the inputs.
    """

    def __init__(self, size: Size) -> None:
        self.module = DepthwiseConvolution(size.width, KERNEL_WIDTH, dropout=0.0, backend="torch")

    def prepare(self, inputs: Inputs) -> Inputs:
        """Returns the inputs with what the encoder makes of the ids once for all its layers."""
        return {**inputs, "segments": Segments.of_ids(inputs["segment_ids"])}

    def __call__(
        self,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor,
        segment_ids: Tensor,
        segments: Segments | None = None,
    ) -> Any:
        """Returns the convolution within each segment."""
        known = segments or Segments.of_ids(segment_ids)
        weights = {"weight": weight, "bias": bias}
        return functional_call(self.module, weights, (hidden, known))


FAMILY = Family(
    "packed depthwise convolution",
    ("forward and backward",),
    operation,
    rivals,
    {},
)
