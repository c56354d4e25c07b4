"""The depthwise convolution on full rows: what all peers can do as well."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import torch
from magicbert_kernels.depthwise_convolution import depthwise_convolution
from torch import Tensor
from torch.func import functional_call
from torch.nn import functional

from magicbert.bench.kernels import peers
from magicbert.bench.kernels.compiled import compiled
from magicbert.bench.kernels.family import Family, Place
from magicbert.bench.kernels.operation import Function, Inputs, Operation
from magicbert.bench.kernels.sizes import Size
from magicbert.bench.registry import OWN, Floor
from magicbert.bert.modeling.depthwise import DepthwiseConvolution
from magicbert.bert.modeling.segments import Segments

KERNEL_WIDTH = 5


def operation(place: Place) -> Operation:
    """Returns the operation: 2 passes forward, 5 with the backward."""
    return Operation(
        draw=functools.partial(draw, place.size, place.device),
        reference=shift_and_add,
        differentiated=("hidden", "weight", "bias"),
        floors={
            "forward": Floor(bytes=2 * place.size.pass_bytes),
            "forward and backward": Floor(bytes=5 * place.size.pass_bytes),
        },
    )


def draw(size: Size, device: torch.device, seed: int) -> Inputs:
    """Returns channel-last hidden states, filters and bias."""
    generator = torch.Generator(device).manual_seed(seed)
    shapes = {
        "hidden": size.shape,
        "weight": (KERNEL_WIDTH, size.width),
        "bias": (size.width,),
    }
    return {
        name: torch.randn(shape, generator=generator, device=device).to(size.dtype).requires_grad_()
        for name, shape in shapes.items()
    }


def rivals(place: Place) -> Mapping[str, Callable[[], Function]]:
    """Returns who computes it."""
    return {
        OWN: lambda: kernel if place.backend == "triton" else encoder_convolution(place.size),
        "shift and add": lambda: shift_and_add,
        "torch.compile": compiled(shift_and_add, place.device),
        "F.conv1d": lambda: channels_last,
        "F.conv1d, channels first": ChannelsFirst,
        "FLA causal, shifted": lambda: ShiftedCausal(place.device),
    }


def kernel(hidden: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Returns it by magicbert's kernel."""
    return depthwise_convolution(hidden, weight, bias, None, backend="triton")


def encoder_convolution(size: Size) -> Function:
    """Returns what the encoder runs where its kernels do not."""
    module = DepthwiseConvolution(size.width, KERNEL_WIDTH, dropout=0.0, backend="torch")
    segments = Segments.full(size.length, torch.device("cpu"))

    def call(hidden: Tensor, weight: Tensor, bias: Tensor) -> Any:
        weights = {"weight": weight, "bias": bias}
        return functional_call(module, weights, (hidden, segments))

    return call


def shift_and_add(hidden: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Returns it as a sum of shifted copies."""
    half, length = len(weight) // 2, hidden.shape[1]
    padded = functional.pad(hidden, (0, 0, half, half))
    terms = (padded[:, k : k + length] * weight[k] for k in range(len(weight)))
    return functools.reduce(torch.add, terms, bias)


def channels_last(hidden: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Returns it by torch's convolution, transposed there and back."""
    filters = weight.t().unsqueeze(1)
    turned = functional.conv1d(
        hidden.transpose(1, 2), filters, bias, padding=len(weight) // 2, groups=hidden.shape[2]
    )
    return turned.transpose(1, 2)


class ChannelsFirst:
    """torch's convolution in the layout that it likes, which its inputs have already."""

    def prepare(self, inputs: Inputs) -> Inputs:
        """Returns the inputs with channels first."""
        turned = inputs["hidden"].detach().transpose(1, 2).contiguous().requires_grad_()
        return {**inputs, "hidden": turned, "is_prepared": True}

    def __call__(
        self, hidden: Tensor, weight: Tensor, bias: Tensor, is_prepared: bool = False
    ) -> Tensor:
        """Returns channels first if they came so."""
        if not is_prepared:
            return channels_last(hidden, weight, bias)
        filters = weight.t().unsqueeze(1)
        return functional.conv1d(
            hidden, filters, bias, padding=len(weight) // 2, groups=hidden.shape[1]
        )


class ShiftedCausal:
    """A causal convolution on rows that go on with zeros: moved by half its width, it is centred.

    Args:
        device: where it runs.
    """

    def __init__(self, device: torch.device) -> None:
        self.function = peers.offered("fla.modules.convolution", "causal_conv1d", device)

    def prepare(self, inputs: Inputs) -> Inputs:
        """Returns rows that go on, and filters in the peer's layout."""
        half = len(inputs["weight"]) // 2
        longer = functional.pad(inputs["hidden"].detach(), (0, 0, 0, half)).requires_grad_()
        filters = inputs["weight"].detach().t().contiguous().requires_grad_()
        return {**inputs, "hidden": longer, "weight": filters, "is_prepared": True}

    def __call__(
        self, hidden: Tensor, weight: Tensor, bias: Tensor, is_prepared: bool = False
    ) -> Any:
        """Returns the centred rows, or, prepared, the longer ones as they come."""
        if is_prepared:
            return self.function(hidden, weight, bias, backend="triton")[0]
        half = len(weight) // 2
        longer = functional.pad(hidden, (0, 0, 0, half))
        return self.function(longer, weight.t().contiguous(), bias, backend="triton")[0][:, half:]


FAMILY = Family(
    "depthwise convolution",
    ("forward", "forward and backward"),
    operation,
    rivals,
    {
        "forward": ("depthwise_convolution_forward",),
        "forward and backward": ("depthwise_convolution_backward",),
    },
)
