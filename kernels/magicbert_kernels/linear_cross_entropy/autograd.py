"""The chunked loss as an operator of its own: opaque to compilers, autocast and graphs.

The forward computes the gradients of the loss sum; the backward multiplies them by the upstream
gradient, which is a scalar.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from magicbert_kernels.backend import Backend
from magicbert_kernels.linear_cross_entropy.chunks import Forward, forward_chunked
from magicbert_kernels.linear_cross_entropy.rows import differentiate_rows

Gradients = tuple[Tensor, Tensor, Tensor]


@torch.library.custom_op("magicbert::linear_cross_entropy_forward", mutates_args=())
def forward(
    hidden_MH: Tensor,
    weight_VH: Tensor,
    bias_V: Tensor,
    labels_M: Tensor,
    wants_gradients: bool,
    backend: str,
) -> Forward:
    """Returns loss sum, right predictions and the loss sum's gradients; see `forward_chunked`."""
    differentiate = differentiate_rows
    if backend == "triton":
        from magicbert_kernels.linear_cross_entropy.kernel import launch_rows

        differentiate = launch_rows
    inputs = (hidden_MH.contiguous(), weight_VH.contiguous(), bias_V, labels_M.contiguous())
    # The types are settled before; autocast must not narrow what is computed in here.
    with torch.autocast(hidden_MH.device.type, enabled=False):
        return forward_chunked(*inputs, wants_gradients, differentiate)


@forward.register_fake
def _(
    hidden_MH: Tensor,
    weight_VH: Tensor,
    bias_V: Tensor,
    labels_M: Tensor,
    wants_gradients: bool,
    backend: str,
) -> Forward:
    wide = torch.promote_types(hidden_MH.dtype, torch.float32)
    loss_sum, correct = hidden_MH.new_empty((), dtype=wide), labels_M.new_empty(())
    shapes = [t.shape if wants_gradients else (0,) for t in (hidden_MH, weight_VH, bias_V)]
    hidden, weight, bias = (hidden_MH.new_empty(shape) for shape in shapes)
    return loss_sum, correct, hidden, weight, bias


@torch.library.custom_op("magicbert::linear_cross_entropy_backward", mutates_args=())
def backward(upstream: Tensor, hidden_MH: Tensor, weight_VH: Tensor, bias_V: Tensor) -> Gradients:
    """Returns three gradients times a scalar."""
    return hidden_MH * upstream, weight_VH * upstream, bias_V * upstream


@backward.register_fake
def _(upstream: Tensor, hidden_MH: Tensor, weight_VH: Tensor, bias_V: Tensor) -> Gradients:
    return torch.empty_like(hidden_MH), torch.empty_like(weight_VH), torch.empty_like(bias_V)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Forward) -> None:
    _, correct, *gradients = output
    ctx.mark_non_differentiable(correct)
    # Nobody differentiates the gradients; zeros as large as they are must not be made for them.
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*gradients)


def _backward(ctx: Any, upstream: Tensor | None, *_: Any) -> tuple[Tensor | None, ...]:
    if upstream is None:
        return (None,) * 6
    hidden, weight, bias = backward(upstream, *ctx.saved_tensors)
    return hidden, weight, bias, None, None, None


forward.register_autograd(_backward, setup_context=_setup_context)


@register_flop_formula(torch.ops.magicbert.linear_cross_entropy_forward)
def _flops(
    hidden: tuple[int, int],
    weight: tuple[int, int],
    bias: tuple[int],
    labels: tuple[int],
    wants_gradients: bool,
    *_: Any,
    **__: Any,
) -> int:
    """Counts the logits' product and, with gradients, those by hidden and weight."""
    return (6 if wants_gradients else 2) * hidden[0] * hidden[1] * weight[0]


def run_forward(
    hidden_MH: Tensor, weight_VH: Tensor, bias_V: Tensor, labels_M: Tensor, backend: Backend
) -> tuple[Tensor, Tensor]:
    """Returns loss sum and right predictions; see `linear_cross_entropy`."""
    is_recorded = torch.is_grad_enabled() and any(
        tensor.requires_grad for tensor in (hidden_MH, weight_VH, bias_V)
    )
    results = forward(hidden_MH, weight_VH, bias_V, labels_M, is_recorded, backend)
    return cast(Tensor, results[0]), cast(Tensor, results[1])
