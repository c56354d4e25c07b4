"""The residual norm as two opaque operators, so that compilers and autocast leave it alone.

What the backward finds the normalised values in, and so what is kept for it, differs:

* with the sum as an output (pre-norm): that sum; the branch as well where GELU needs it;
* with GELU: branch and residual, of which the branch is needed anyway;
* else the output, and branch and residual for the few features that it does not give back.

Output, sum and residual are inputs or outputs of the neighbours too and take no memory of their
own: what is kept for the norm alone is the branch and two numbers per row.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from magicbert_kernels.residual_norm.launches import (
    Dropout,
    launch_backward,
    launch_forward,
    launch_reduction,
    narrowest,
    num_partials,
)
from magicbert_kernels.residual_norm.reference import Activation

FORWARD = (
    "(Tensor branch, Tensor residual, Tensor weight, Tensor bias, Tensor? branch_bias, "
    "Tensor? seed, float epsilon, float dropout, int stream, bool is_gelu, bool is_prenorm) "
    "-> (Tensor, Tensor, Tensor)"
)
BACKWARD = (
    "(Tensor normed_gradient, Tensor? summed_gradient, Tensor? result, Tensor? branch, "
    "Tensor? residual, Tensor weight, Tensor bias, Tensor? branch_bias, Tensor? seed, "
    "Tensor statistics, float dropout, int stream, bool is_gelu, bool is_sum, "
    "ScalarType branch_dtype) -> (Tensor, Tensor, Tensor)"
)


def rows_of(tensor: Tensor | None, width: int) -> Tensor | None:
    """Returns a contiguous ``[P, H]`` view or copy."""
    return None if tensor is None else tensor.reshape(-1, width).contiguous()


def contiguous(tensor: Tensor | None) -> Tensor | None:
    """Returns a tensor whose elements follow one another, or ``None`` for ``None``."""
    return None if tensor is None else tensor.contiguous()


@torch.library.custom_op("magicbert::residual_norm_forward", mutates_args=(), schema=FORWARD)
def forward_operator(
    branch: Tensor,
    residual: Tensor,
    weight: Tensor,
    bias: Tensor,
    branch_bias: Tensor | None,
    seed: Tensor | None,
    epsilon: float,
    dropout: float,
    stream: int,
    is_gelu: bool,
    is_prenorm: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Returns the output, the sum (empty unless it is wanted) and fp32 ``[2, P]`` statistics."""
    width = residual.shape[-1]
    normed, summed, statistics = forward_outputs(branch, residual, is_prenorm)
    if normed.numel():
        launch_forward(
            branch.reshape(-1, width).contiguous(),
            residual.reshape(-1, width).contiguous(),
            weight.contiguous(),
            bias.contiguous(),
            contiguous(branch_bias),
            Dropout(dropout, seed if dropout else None, stream),
            epsilon,
            is_gelu,
            normed.view(-1, width),
            summed.view(-1, width) if is_prenorm else None,
            statistics,
        )
    return normed, summed, statistics


def forward_outputs(
    branch: Tensor, residual: Tensor, is_prenorm: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Returns empty tensors for what the forward returns."""
    width = residual.shape[-1]
    num_rows = residual.numel() // width if width else 0
    return (
        residual.new_empty(residual.shape),
        residual.new_empty(residual.shape if is_prenorm else (0,)),
        residual.new_empty((2, num_rows), dtype=torch.float32),
    )


@forward_operator.register_fake
def _(  # type: ignore[no-untyped-def]
    branch, residual, weight, bias, branch_bias, seed, epsilon, dropout, stream, is_gelu, is_prenorm
) -> tuple[Tensor, Tensor, Tensor]:
    return forward_outputs(branch, residual, is_prenorm)


@torch.library.custom_op("magicbert::residual_norm_backward", mutates_args=(), schema=BACKWARD)
def backward_operator(
    normed_gradient: Tensor,
    summed_gradient: Tensor | None,
    result: Tensor | None,
    branch: Tensor | None,
    residual: Tensor | None,
    weight: Tensor,
    bias: Tensor,
    branch_bias: Tensor | None,
    seed: Tensor | None,
    statistics: Tensor,
    dropout: float,
    stream: int,
    is_gelu: bool,
    is_sum: bool,
    branch_dtype: torch.dtype,
) -> tuple[Tensor, Tensor, Tensor]:
    """Returns gradients of residual, branch (empty if the same) and parameters ``[N, H]``."""
    outputs = backward_outputs(
        normed_gradient, weight, bias, branch_bias, dropout, is_gelu, branch_dtype
    )
    residual_gradient, branch_gradient, parameter_gradients = outputs
    if not normed_gradient.numel():
        parameter_gradients.zero_()
        return outputs
    gradient = normed_gradient.reshape(-1, weight.numel()).contiguous()
    num_rows, width = gradient.shape
    dtype = narrowest(gradient.dtype, branch_dtype)
    num_programs = num_partials(num_rows, width, dtype, gradient.device)
    shape = (num_programs, *parameter_gradients.shape)
    partials = gradient.new_empty(shape, dtype=torch.float32)
    launch_backward(
        gradient,
        rows_of(summed_gradient, width),
        rows_of(result, width),
        rows_of(branch, width),
        rows_of(residual, width),
        weight.contiguous(),
        bias.contiguous(),
        contiguous(branch_bias),
        Dropout(dropout, seed if dropout else None, stream),
        statistics,
        is_gelu,
        is_sum,
        branch_gradient.view(-1, width) if branch_gradient.numel() else None,
        residual_gradient.view(-1, width),
        partials,
    )
    launch_reduction(partials, parameter_gradients)
    return outputs


def backward_outputs(
    normed_gradient: Tensor,
    weight: Tensor,
    bias: Tensor,
    branch_bias: Tensor | None,
    dropout: float,
    is_gelu: bool,
    branch_dtype: torch.dtype,
) -> tuple[Tensor, Tensor, Tensor]:
    """Returns empty tensors for what the backward returns."""
    shape = normed_gradient.shape
    is_same = not is_gelu and not dropout and branch_dtype == normed_gradient.dtype
    parameters = [weight, bias] if branch_bias is None else [weight, bias, branch_bias]
    widest = parameters[0].dtype
    for parameter in parameters[1:]:
        widest = torch.promote_types(widest, parameter.dtype)
    return (
        normed_gradient.new_empty(shape),
        normed_gradient.new_empty((0,) if is_same else shape, dtype=branch_dtype),
        weight.new_empty((len(parameters), weight.numel()), dtype=widest),
    )


@backward_operator.register_fake
def _(  # type: ignore[no-untyped-def]
    normed_gradient, summed_gradient, result, branch, residual, weight, bias, branch_bias, seed,
    statistics, dropout, stream, is_gelu, is_sum, branch_dtype,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    return backward_outputs(
        normed_gradient, weight, bias, branch_bias, dropout, is_gelu, branch_dtype
    )


def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    """Keeps what this variant's backward needs: see the top of this file."""
    branch, residual, weight, bias, branch_bias, seed, _, dropout, stream, is_gelu, is_prenorm = (
        inputs
    )
    normed, summed, statistics = output
    result = summed if is_prenorm else (None if is_gelu else normed)
    ctx.save_for_backward(
        result,
        branch if is_gelu or not is_prenorm else None,
        None if is_prenorm else residual,
        weight,
        bias,
        branch_bias,
        seed,
        statistics,
    )
    ctx.options = (dropout, stream, is_gelu, is_prenorm, branch.dtype)
    ctx.set_materialize_grads(False)


def backward(
    ctx: Any,
    normed_gradient: Tensor | None,
    summed_gradient: Tensor | None,
    statistics_gradient: None,
) -> tuple[Tensor | None, ...]:
    """Returns the gradients of all arguments of the forward operator."""
    result, branch, residual, weight, bias, branch_bias, seed, statistics = ctx.saved_tensors
    is_prenorm = ctx.options[3]
    # Of an output that is empty, some callers make an empty gradient: it is none.
    summed_gradient = summed_gradient if is_prenorm else None
    if normed_gradient is None:
        if summed_gradient is None:
            return (None,) * 11
        normed_gradient = torch.zeros_like(summed_gradient)
    residual_gradient, branch_gradient, parameters = backward_operator(
        normed_gradient, summed_gradient, result, branch, residual, weight, bias, branch_bias, seed,
        statistics, *ctx.options,
    )  # fmt: skip
    if not branch_gradient.numel():
        # Nothing stands between the branch and the sum: one tensor is the gradient of both.
        branch_gradient = residual_gradient
    return (
        branch_gradient,
        residual_gradient,
        parameters[0].to(weight.dtype),
        parameters[1].to(bias.dtype),
        None if branch_bias is None else parameters[2].to(branch_bias.dtype),
        *(None,) * 6,
    )


forward_operator.register_autograd(backward, setup_context=setup_context)


def residual_norm_triton(
    branch: Tensor,
    residual: Tensor,
    weight_H: Tensor,
    bias_H: Tensor,
    *,
    epsilon: float,
    branch_bias: Tensor | None,
    activation: Activation,
    dropout: float,
    seed: Tensor | None,
    stream: int,
    is_prenorm: bool,
) -> tuple[Tensor, Tensor]:
    """Returns output and sum; see `magicbert_kernels.residual_norm.residual_norm`.

    Raises:
        ValueError: an argument is fp64, which the kernels would round.
    """
    if torch.float64 in (branch.dtype, residual.dtype, weight_H.dtype):
        raise ValueError("the triton backend computes in fp32: use torch for fp64")
    normed, summed, _ = forward_operator(
        branch, residual, weight_H, bias_H, branch_bias, seed, epsilon, dropout, stream,
        activation == "gelu", is_prenorm,
    )  # fmt: skip
    return normed, summed
