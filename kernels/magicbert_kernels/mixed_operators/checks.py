"""What the mixed operators ask of their inputs."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from magicbert_kernels.mixed_operators.operator_rows import OperatorRows


def check_convolution(
    hidden_RSH: Tensor,
    weights_KH: Sequence[Tensor],
    biases_H: Sequence[Tensor],
    operators: OperatorRows,
    segment_ids_RS: Tensor | None,
) -> None:
    """Raises ``ValueError`` unless filters, biases and segment ids fit the hidden states."""
    check_vectors(hidden_RSH, operators, biases_H)
    num_channels = hidden_RSH.shape[-1]
    shapes = [tuple(weight.shape) for weight in weights_KH]
    fits = [len(shape) == 2 and shape[0] % 2 == 1 and shape[1] == num_channels for shape in shapes]
    if len(shapes) != len(operators.sizes) or not all(fits):
        raise ValueError(
            f"{len(operators.sizes)} operators need filters [odd, {num_channels}], got {shapes}"
        )
    if segment_ids_RS is not None and segment_ids_RS.shape != hidden_RSH.shape[:2]:
        raise ValueError(
            f"segment ids must be {list(hidden_RSH.shape[:2])}, got {list(segment_ids_RS.shape)}"
        )


def check_vectors(
    hidden_RSH: Tensor, operators: OperatorRows, *vectors_H: Sequence[Tensor]
) -> None:
    """Raises ``ValueError`` unless every operator has one vector of the width of each kind."""
    if hidden_RSH.ndim != 3 or len(hidden_RSH) != operators.num_rows:
        raise ValueError(
            f"{operators.num_rows} rows need [rows, length, width], got {list(hidden_RSH.shape)}"
        )
    for vectors in vectors_H:
        shapes = [list(vector.shape) for vector in vectors]
        if shapes != [[hidden_RSH.shape[-1]]] * len(operators.sizes):
            raise ValueError(
                f"{len(operators.sizes)} operators need vectors [{hidden_RSH.shape[-1]}], "
                f"got {shapes}"
            )
