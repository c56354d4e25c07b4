"""Dropout, residual sum and LayerNorm, the end of every operator, in one pass."""

from __future__ import annotations

from typing import Any, Literal, overload

from torch import Tensor

from magicbert_kernels.backend import Backend
from magicbert_kernels.residual_norm.reference import (
    Activation,
    check_inputs,
    residual_norm_reference,
)

__all__ = ["residual_norm", "residual_norm_reference"]


@overload
def residual_norm(
    branch: Tensor,
    residual: Tensor,
    weight_H: Tensor,
    bias_H: Tensor,
    *,
    epsilon: float,
    branch_bias: Tensor | None = None,
    activation: Activation = "none",
    dropout: float = 0.0,
    seed: Tensor | None = None,
    stream: int = 0,
    is_prenorm: Literal[False] = False,
    backend: Backend,
) -> Tensor: ...


@overload
def residual_norm(
    branch: Tensor,
    residual: Tensor,
    weight_H: Tensor,
    bias_H: Tensor,
    *,
    epsilon: float,
    branch_bias: Tensor | None = None,
    activation: Activation = "none",
    dropout: float = 0.0,
    seed: Tensor | None = None,
    stream: int = 0,
    is_prenorm: Literal[True],
    backend: Backend,
) -> tuple[Tensor, Tensor]: ...


def residual_norm(
    branch: Tensor,
    residual: Tensor,
    weight_H: Tensor,
    bias_H: Tensor,
    *,
    epsilon: float,
    branch_bias: Tensor | None = None,
    activation: Activation = "none",
    dropout: float = 0.0,
    seed: Tensor | None = None,
    stream: int = 0,
    is_prenorm: bool = False,
    backend: Backend,
) -> Tensor | tuple[Tensor, Tensor]:
    """Returns ``LN(s)`` with ``s = residual + dropout(activation(branch + branch_bias))``.

    Pre-norm returns ``(LN(s), s)``: the sum goes on as the next residual. Both have the residual's
    type; types of the arguments may differ, as they do under autocast.

    Args:
        branch: ``[..., H]``, what the operator adds.
        residual: ``[..., H]``, what it adds to.
        weight_H: ``[H]``, LayerNorm's scale.
        bias_H: ``[H]``, LayerNorm's shift.
        epsilon: added to the variance.
        branch_bias: ``[H]``, or ``None`` where the branch has its bias already.
        activation: ``none`` or ``gelu`` (the exact one), before the dropout.
        dropout: share of the branch's elements to drop, at least 0 and below 1.
        seed: int64, one element on the device, see `magicbert_kernels.philox.draw_seed`; needed
            where ``dropout`` is not 0.
        stream: number of this dropout among those that share the seed.
        is_prenorm: whether to return the sum as well.
        backend: ``triton`` or ``torch``, see `magicbert_kernels.backend.resolve_backend`.

    Raises:
        ValueError: shapes or devices do not fit together, an option does not exist, no seed.
    """
    features = {"weight_H": weight_H, "bias_H": bias_H, "branch_bias": branch_bias}
    check_inputs(branch, residual, features, activation, dropout, seed)
    arguments: dict[str, Any] = {
        "epsilon": epsilon,
        "branch_bias": branch_bias,
        "activation": activation,
        "dropout": dropout,
        "seed": seed,
        "stream": stream,
    }
    if backend == "torch":
        outputs = residual_norm_reference(branch, residual, weight_H, bias_H, **arguments)
    else:
        # Triton is imported where it runs: the torch backend works without it.
        from magicbert_kernels.residual_norm.autograd import residual_norm_triton

        outputs = residual_norm_triton(
            branch, residual, weight_H, bias_H, is_prenorm=is_prenorm, **arguments
        )
    return outputs if is_prenorm else outputs[0]
