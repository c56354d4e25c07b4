"""Several operators in one launch: every row of a batch goes through the one it is given.

Rows stand operator by operator (`OperatorRows`). The kernels take weights as they are, one tensor
per operator. They have no gradient: a candidate's score needs none, and training runs one path.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor

from magicbert_kernels.backend import Backend
from magicbert_kernels.mixed_operators.checks import check_convolution, check_vectors
from magicbert_kernels.mixed_operators.grouped_linear import grouped_linear
from magicbert_kernels.mixed_operators.operator_rows import OperatorRows
from magicbert_kernels.mixed_operators.reference import (
    mixed_bias_gelu_reference,
    mixed_depthwise_convolution_reference,
    mixed_gelu_norm_reference,
)

__all__ = [
    "OperatorRows",
    "grouped_linear",
    "mixed_bias_gelu",
    "mixed_bias_gelu_reference",
    "mixed_depthwise_convolution",
    "mixed_depthwise_convolution_reference",
    "mixed_gelu_norm",
    "mixed_gelu_norm_reference",
]


def mixed_depthwise_convolution(
    hidden_RSH: Tensor,
    weights_KH: Sequence[Tensor],
    biases_H: Sequence[Tensor],
    operators: OperatorRows,
    segment_ids_RS: Tensor | None,
    *,
    backend: Backend,
) -> Tensor:
    """Returns each row's centred depthwise convolution with the filter of its operator.

    Args:
        hidden_RSH: channel-last, rows sorted by operator.
        weights_KH: one filter per operator; widths may differ: 3, 5 or 7 (any odd one for torch).
        biases_H: one per operator.
        operators: of the rows.
        segment_ids_RS: a position sees its own segment alone; 0 = padding, whose output is the
            bias. ``None`` = each row is one full segment.
        backend: ``triton`` or ``torch``, see `magicbert_kernels.backend.resolve_backend`.

    Raises:
        ValueError: shapes do not fit, or a gradient is asked of ``triton``.
    """
    check_convolution(hidden_RSH, weights_KH, biases_H, operators, segment_ids_RS)
    if backend == "torch":
        return mixed_depthwise_convolution_reference(
            hidden_RSH, weights_KH, biases_H, operators, segment_ids_RS
        )
    refuse_gradient(hidden_RSH, *weights_KH, *biases_H)
    # Triton is imported where it runs: the torch backend works without it.
    from magicbert_kernels.mixed_operators.custom_ops import depthwise_forward

    output_RSH = depthwise_forward(
        hidden_RSH, list(weights_KH), list(biases_H), operators.ids, segment_ids_RS
    )
    return cast(Tensor, output_RSH)


def mixed_bias_gelu(
    inner_RSI: Tensor, biases_I: Sequence[Tensor], operators: OperatorRows, *, backend: Backend
) -> Tensor:
    """Returns ``gelu(inner + bias)`` (erf form) with the bias of each row's operator.

    Args:
        inner_RSI: rows sorted by operator.
        biases_I: one per operator.
        operators: of the rows.
        backend: ``triton`` or ``torch``.

    Raises:
        ValueError: shapes do not fit, or a gradient is asked of ``triton``.
    """
    check_vectors(inner_RSI, operators, biases_I)
    if backend == "torch":
        return mixed_bias_gelu_reference(inner_RSI, biases_I, operators)
    refuse_gradient(inner_RSI, *biases_I)
    from magicbert_kernels.mixed_operators.custom_ops import bias_gelu_forward

    return cast(Tensor, bias_gelu_forward(inner_RSI, list(biases_I), operators.ids))


def mixed_gelu_norm(
    branch_RSH: Tensor,
    residual_RSH: Tensor,
    biases_H: Sequence[Tensor],
    norm_weights_H: Sequence[Tensor],
    norm_biases_H: Sequence[Tensor],
    operators: OperatorRows,
    *,
    epsilon: float,
    backend: Backend,
) -> Tensor:
    """Returns ``LN(residual + gelu(branch + bias))`` with bias and norm of each row's operator.

    Args:
        branch_RSH: rows sorted by operator.
        residual_RSH: the same rows; its type is the output's.
        biases_H: one per operator, ahead of the erf GELU.
        norm_weights_H: one per operator.
        norm_biases_H: one per operator.
        operators: of the rows.
        epsilon: of the norm.
        backend: ``triton`` or ``torch``.

    Raises:
        ValueError: shapes do not fit, or a gradient is asked of ``triton``.
    """
    check_vectors(branch_RSH, operators, biases_H, norm_weights_H, norm_biases_H)
    if residual_RSH.shape != branch_RSH.shape:
        raise ValueError(
            f"branch is {tuple(branch_RSH.shape)}, residual {tuple(residual_RSH.shape)}"
        )
    vectors = (biases_H, norm_weights_H, norm_biases_H)
    if backend == "torch":
        return mixed_gelu_norm_reference(branch_RSH, residual_RSH, *vectors, operators, epsilon)
    refuse_gradient(branch_RSH, residual_RSH, *biases_H, *norm_weights_H, *norm_biases_H)
    from magicbert_kernels.mixed_operators.custom_ops import gelu_norm_forward

    output_RSH = gelu_norm_forward(
        branch_RSH, residual_RSH, *map(list, vectors), operators.ids, epsilon
    )
    return cast(Tensor, output_RSH)


def refuse_gradient(*tensors: Tensor) -> None:
    """Raises ``ValueError`` where autograd would have to record a kernel."""
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors):
        raise ValueError("the mixed operators of triton have no gradient: use torch or no_grad")
