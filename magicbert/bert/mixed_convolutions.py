"""Several convolutions of one layer at once, each on rows of its own, without gradients.

The candidates keep their weights; what one after the other would launch once per candidate is
launched once: the depthwise convolutions, the pointwise products, and what follows them.

Hidden states are ``[rows, length, width]``, their rows sorted by candidate.
"""

from __future__ import annotations

from collections.abc import Sequence

from magicbert_kernels.backend import Backend
from magicbert_kernels.mixed_operators import (
    OperatorRows,
    grouped_linear,
    mixed_bias_gelu,
    mixed_depthwise_convolution,
    mixed_gelu_norm,
)
from torch import Tensor, nn

from magicbert.bert.modeling.convolution import (
    SeparableConvolution,
    StackedConvolution,
    WidenedConvolution,
)


def convolution_family(operator: nn.Module) -> str | None:
    """Returns the same text for operators that can run together; ``None`` = alone.

    Kernel sizes may differ, the sizes of the matrices may not.
    """
    if isinstance(operator, StackedConvolution):
        return "stacked"
    if isinstance(operator, WidenedConvolution):
        return f"widened {operator.widen.pointwise.out_features}"
    return None


class MixedConvolutions:
    """A set of candidates of one family, and the rows that each of them takes.

    Args:
        operators: number of rows of each candidate, in their order.
        segment_ids: ``[rows, length]``; ``None`` = each row is one full segment.
        backend: where the kernels run.
    """

    def __init__(
        self, operators: OperatorRows, segment_ids: Tensor | None, backend: Backend
    ) -> None:
        self.operators = operators
        self.segment_ids = segment_ids
        self.backend = backend

    def run(self, candidates: Sequence[nn.Module], hidden: Tensor) -> Tensor:
        """Returns the next hidden state of every row."""
        stacked = [c for c in candidates if isinstance(c, StackedConvolution)]
        if stacked:
            return self.run_stacked(stacked, hidden)
        return self.run_widened(
            [c for c in candidates if isinstance(c, WidenedConvolution)], hidden
        )

    def run_stacked(self, candidates: Sequence[StackedConvolution], hidden: Tensor) -> Tensor:
        """Returns two sub-layers, each ``LN(x + gelu(separable(x)))``."""
        first, norms = [c.first for c in candidates], [c.first_norm for c in candidates]
        middle = self.end(first, self.branch(first, hidden), hidden, norms)
        second, norms = [c.second for c in candidates], [c.second_norm for c in candidates]
        return self.end(second, self.branch(second, middle), middle, norms)

    def run_widened(self, candidates: Sequence[WidenedConvolution], hidden: Tensor) -> Tensor:
        """Returns ``LN(x + gelu(narrow(gelu(widen(x)))))``, both of them separable."""
        widen, narrow = [c.widen for c in candidates], [c.narrow for c in candidates]
        inner = mixed_bias_gelu(
            self.branch(widen, hidden), biases(widen), self.operators, backend=self.backend
        )
        norms = [c.norm for c in candidates]
        return self.end(narrow, self.branch(narrow, inner), hidden, norms)

    def branch(self, parts: Sequence[SeparableConvolution], hidden: Tensor) -> Tensor:
        """Returns the separable convolutions, ahead of bias and GELU."""
        mixed = mixed_depthwise_convolution(
            hidden,
            [part.depthwise.weight for part in parts],
            [part.depthwise.bias for part in parts],
            self.operators,
            self.segment_ids,
            backend=self.backend,
        )
        return grouped_linear(mixed, [part.pointwise.weight for part in parts], self.operators)

    def end(
        self,
        parts: Sequence[SeparableConvolution],
        branch: Tensor,
        residual: Tensor,
        norms: Sequence[nn.LayerNorm],
    ) -> Tensor:
        """Returns ``LN(residual + gelu(branch + bias))``."""
        return mixed_gelu_norm(
            branch,
            residual,
            biases(parts),
            [norm.weight for norm in norms],
            [norm.bias for norm in norms],
            self.operators,
            epsilon=norms[0].eps,
            backend=self.backend,
        )


def biases(parts: Sequence[SeparableConvolution]) -> list[Tensor]:
    """Returns the biases of the pointwise convolutions."""
    return [part.pointwise.bias for part in parts]
