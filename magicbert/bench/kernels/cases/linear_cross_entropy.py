"""The head of masked language modelling: logits of the predicted positions and their loss."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping

import torch
from magicbert_kernels.backend import Backend
from magicbert_kernels.linear_cross_entropy import linear_cross_entropy
from torch import Tensor
from torch.nn import functional

from magicbert.bench.kernels.compiled import compiled
from magicbert.bench.kernels.family import Family, Place
from magicbert.bench.kernels.operation import Function, Inputs, Operation
from magicbert.bench.kernels.peers import offered
from magicbert.bench.kernels.sizes import Size
from magicbert.bench.registry import OWN, AbsentError, Floor

SHARE_PREDICTED = 0.15
# BERT's vocabulary; a part of it on a CPU, where a call would take seconds.
VOCABULARY = {"cuda": 30522, "cpu": 8192}
MATMULS = 3  # logits, gradient of the hidden states, gradient of the decoder


def operation(place: Place) -> Operation:
    """Returns loss and gradients: three products, each operand and gradient moved once."""
    rows, vocabulary = num_predictions(place.size), VOCABULARY[place.device.type]
    width = place.size.width
    floor = Floor(
        bytes=2 * (rows + vocabulary) * width * place.size.dtype.itemsize,
        flops=2 * MATMULS * rows * width * vocabulary,
        matmul=(rows, width, vocabulary),
        dtype=place.size.dtype,
    )
    return Operation(
        draw=functools.partial(draw, place.size, place.device),
        reference=plain,
        differentiated=("hidden", "weight", "bias"),
        floors={"forward and backward": floor},
        is_loss=True,
    )


def num_predictions(size: Size) -> int:
    """Returns how many positions of a batch are predicted."""
    return max(round(SHARE_PREDICTED * size.rows * size.length), 1)


def draw(size: Size, device: torch.device, seed: int) -> Inputs:
    """Returns hidden states, a decoder as BERT initialises it, and labels."""
    generator = torch.Generator(device).manual_seed(seed)
    rows, vocabulary = num_predictions(size), VOCABULARY[device.type]

    def noise(*shape: int, scale: float) -> Tensor:
        values = torch.randn(shape, generator=generator, device=device) * scale
        return values.to(size.dtype).requires_grad_()

    return {
        "hidden": noise(rows, size.width, scale=1.0),
        "weight": noise(vocabulary, size.width, scale=0.02),
        "bias": noise(vocabulary, scale=0.02),
        "labels": torch.randint(vocabulary, (rows,), generator=generator, device=device),
    }


def rivals(place: Place) -> Mapping[str, Callable[[], Function]]:
    """Returns who computes it."""
    return {
        OWN: lambda: functools.partial(own, backend=place.backend),
        "eager": lambda: plain,
        "torch.compile": compiled(plain, place.device),
        "F.linear_cross_entropy": torch_fused,
        "Liger": lambda: liger(place.device),
        "cut-cross-entropy": lambda: cut_cross_entropy(place.device),
    }


def own(
    hidden: Tensor, weight: Tensor, bias: Tensor, labels: Tensor, *, backend: Backend
) -> Tensor:
    """Returns the summed loss; the number of right predictions is counted as well."""
    return linear_cross_entropy(hidden, weight, bias, labels, backend=backend)[0]


def plain(hidden: Tensor, weight: Tensor, bias: Tensor, labels: Tensor) -> Tensor:
    """Returns the summed loss with all logits in memory, in fp32 as under autocast."""
    logits = functional.linear(hidden, weight, bias)
    wide = torch.promote_types(logits.dtype, torch.float32)
    return functional.cross_entropy(logits.to(wide), labels, reduction="sum")


def torch_fused() -> Function:
    """Returns torch's own fused form, where this torch has it."""
    fused = getattr(functional, "linear_cross_entropy", None)
    if fused is None:
        raise AbsentError(f"not in torch {torch.__version__}")

    def call(hidden: Tensor, weight: Tensor, bias: Tensor, labels: Tensor) -> Tensor:
        loss: Tensor = fused(hidden, weight, labels, linear_bias=bias, reduction="sum")
        return loss

    return call


def liger(device: torch.device) -> Function:
    """Returns Liger's fused linear cross-entropy."""
    module = "liger_kernel.ops.fused_linear_cross_entropy"
    function = offered(module, "LigerFusedLinearCrossEntropyFunction", device)

    def call(hidden: Tensor, weight: Tensor, bias: Tensor, labels: Tensor) -> Tensor:
        found = function.apply(hidden, weight, labels, bias, None, -100, 0.0, 0.0, "sum")
        loss: Tensor = found[0] if isinstance(found, tuple) else found
        return loss

    return call


def cut_cross_entropy(device: torch.device) -> Function:
    """Returns Apple's, which computes the logits twice and keeps none."""
    function = offered("cut_cross_entropy", "linear_cross_entropy", device)

    def call(hidden: Tensor, weight: Tensor, bias: Tensor, labels: Tensor) -> Tensor:
        loss: Tensor = function(hidden, weight, labels, bias=bias, reduction="sum")
        return loss

    return call


FAMILY = Family(
    "linear cross-entropy",
    ("forward and backward",),
    operation,
    rivals,
    {"forward and backward": ("linear_cross_entropy_rows",)},
    unit="FLOP",
)
