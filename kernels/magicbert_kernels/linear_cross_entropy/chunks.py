"""The chunked form: logits, losses and gradients of some predictions at a time.

Shape suffixes: M predictions (of one chunk, inside the loop), H hidden, V vocabulary, P the
vocabulary padded to `ALIGNMENT`.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from magicbert_kernels.backend import Backend
from magicbert_kernels.linear_cross_entropy.rows import differentiate_rows

# Rows of logits begin at multiples of this many elements. A vocabulary of 30522 rows otherwise
# starts most of them off every boundary that vector units and tensor cores load at.
ALIGNMENT = 64
# What the logits of one chunk may take. One chunk more is one more read and write of the weight's
# gradient, so chunks are as large as memory is cheap.
MAX_BYTES = {"cpu": 64 << 20, "cuda": 256 << 20}

DifferentiateRows = Callable[[Tensor, int, Tensor, Tensor, Tensor, bool], None]
Forward = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]


def forward_chunked(
    hidden_MH: Tensor,
    weight_VH: Tensor,
    bias_V: Tensor,
    labels_M: Tensor,
    wants_gradients: bool,
    differentiate: DifferentiateRows = differentiate_rows,
) -> Forward:
    """Computes everything; no chunk's logits outlive it.

    Args:
        hidden_MH: all predictions.
        weight_VH: same type.
        bias_V: same type.
        labels_M: int64.
        wants_gradients: else none is computed.
        differentiate: turns logits into losses and, in place, into their gradient.

    Returns:
        Loss sum, number of right predictions, and the gradients of the loss sum by hidden, weight
        and bias, in their types; without ``wants_gradients`` these are empty.
    """
    num_rows, vocab_size = len(labels_M), len(weight_VH)
    wide = torch.promote_types(hidden_MH.dtype, torch.float32)
    losses_M = hidden_MH.new_empty(num_rows, dtype=wide)
    hits_M = labels_M.new_empty(num_rows, dtype=torch.int32)
    padded_size = -(-vocab_size // ALIGNMENT) * ALIGNMENT
    size = rows_per_chunk(num_rows, padded_size * hidden_MH.element_size(), hidden_MH.device.type)
    buffer_MP = hidden_MH.new_empty(size, padded_size)
    sums = GradientSums(hidden_MH, weight_VH, size) if wants_gradients else None
    for start in range(0, num_rows, size):
        part = slice(start, min(start + size, num_rows))
        logits_MP = buffer_MP[: part.stop - start]
        torch.addmm(bias_V, hidden_MH[part], weight_VH.t(), out=logits_MP[:, :vocab_size])
        differentiate(
            logits_MP, vocab_size, labels_M[part], losses_M[part], hits_M[part], wants_gradients
        )
        if sums is not None:
            sums.add(logits_MP[:, :vocab_size], part)
    if sums is None:
        empty = hidden_MH.new_empty(0)
        return losses_M.sum(), hits_M.sum(), empty, empty.clone(), empty.clone()
    return losses_M.sum(), hits_M.sum(), *sums.rounded(hidden_MH.dtype)


def rows_per_chunk(num_rows: int, bytes_per_row: int, device_type: str) -> int:
    """Returns the rows of a chunk: as few chunks as memory allows, and all equally large."""
    most = max(MAX_BYTES.get(device_type, MAX_BYTES["cuda"]) // bytes_per_row, 1)
    num_chunks = max(-(-num_rows // most), 1)
    return max(-(-num_rows // num_chunks), 1)


def adds_wide_products(sum_VH: Tensor) -> bool:
    """Returns whether products of low precision are added to an fp32 sum without a pass between."""
    is_nvidia = sum_VH.device.type == "cuda" and torch.version.hip is None
    return is_nvidia and torch.cuda.get_device_capability(sum_VH.device) >= (8, 0)


def scratch_bytes(num_rows: int, vocab_size: int, dtype: torch.dtype, backend: Backend) -> int:
    """Returns the bytes of one chunk's logits, with the fp32 copy that plain PyTorch needs."""
    padded_size = -(-vocab_size // ALIGNMENT) * ALIGNMENT
    device_type = "cuda" if backend == "triton" else "cpu"
    size = rows_per_chunk(num_rows, padded_size * dtype.itemsize, device_type)
    needs_copy = backend == "torch" and dtype.itemsize < torch.float32.itemsize
    copied = torch.float32.itemsize if needs_copy else 0
    return size * padded_size * (dtype.itemsize + copied)


class GradientSums:
    """The gradients by hidden, weight and bias, as the chunks come in.

    Where several chunks add up in low precision, the sum over them is in fp32.

    Args:
        hidden_MH: all predictions.
        weight_VH: of the decoder.
        rows_per_chunk: how many predictions come at a time.
    """

    def __init__(self, hidden_MH: Tensor, weight_VH: Tensor, rows_per_chunk: int) -> None:
        self.hidden_MH, self.weight_VH = hidden_MH, weight_VH
        wide = torch.promote_types(hidden_MH.dtype, torch.float32)
        is_single = rows_per_chunk >= len(hidden_MH)
        self.hidden_gradient_MH = torch.empty_like(hidden_MH)
        self.weight_gradient_VH = weight_VH.new_zeros(0)
        self.weight_type = weight_VH.dtype if is_single else wide
        self.bias_gradient_V = weight_VH.new_zeros(len(weight_VH), dtype=wide)

    def add(self, gradient_MV: Tensor, part: slice) -> None:
        """Adds one chunk: the gradient by its logits."""
        torch.mm(gradient_MV, self.weight_VH, out=self.hidden_gradient_MH[part])
        self.bias_gradient_V += gradient_MV.sum(0, dtype=self.bias_gradient_V.dtype)
        given_MH, sum_VH = self.hidden_MH[part], self.weight_gradient_VH
        if not sum_VH.numel():
            self.weight_gradient_VH = torch.mm(gradient_MV.t(), given_MH).to(self.weight_type)
        elif sum_VH.dtype == gradient_MV.dtype:
            sum_VH.addmm_(gradient_MV.t(), given_MH)
        elif adds_wide_products(sum_VH):
            torch.addmm(sum_VH, gradient_MV.t(), given_MH, out_dtype=sum_VH.dtype, out=sum_VH)
        else:
            sum_VH.add_(torch.mm(gradient_MV.t(), given_MH))

    def rounded(self, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
        """Returns the three gradients in a type."""
        if not self.weight_gradient_VH.numel():
            self.weight_gradient_VH = torch.zeros_like(self.weight_VH)
        sums = (self.hidden_gradient_MH, self.weight_gradient_VH, self.bias_gradient_V)
        hidden, weight, bias = (gradient.to(dtype) for gradient in sums)
        return hidden, weight, bias
