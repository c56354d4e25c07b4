"""Bias, GELU and dropout in one pass each way, the bias's gradient in the backward's."""

from __future__ import annotations

from torch import Tensor

from magicbert_kernels.backend import Backend
from magicbert_kernels.bias_gelu.reference import bias_gelu_reference, check_inputs

__all__ = ["bias_gelu", "bias_gelu_reference"]


def bias_gelu(
    inner: Tensor,
    bias: Tensor,
    *,
    dropout: float = 0.0,
    seed: Tensor | None = None,
    stream: int = 0,
    backend: Backend,
) -> Tensor:
    """Returns ``Dropout(GELU(inner + bias))`` with the exact (erf) GELU, in ``inner``'s type.

    The Triton form keeps ``inner`` alone for the backward, not the sum, the activation or the mask.

    Args:
        inner: ``[..., F]``, a product of matrices without its bias.
        bias: ``[F]``, of any floating-point type.
        dropout: probability of zeroing an element; the others are divided by 1 minus it.
        seed: one int64 on the device, see `magicbert_kernels.philox.draw_seed`; needed by dropout.
        stream: number of this dropout among those of the seed.
        backend: ``triton`` or ``torch``, see `magicbert_kernels.backend.resolve_backend`.

    Raises:
        ValueError: shapes, devices, dropout or seed do not fit.
    """
    check_inputs(inner, bias, dropout, seed)
    if backend == "torch":
        return bias_gelu_reference(inner, bias, dropout=dropout, seed=seed, stream=stream)
    # Triton is imported where it runs: the torch backend works without it.
    from magicbert_kernels.bias_gelu.autograd import bias_gelu_triton

    return bias_gelu_triton(inner, bias, seed if dropout else None, stream, dropout)
