"""Separable convolutions, ``conv{kernel}`` and ``conv{kernel}x{inner}``.

Shape suffixes: B rows, S positions, H hidden, I inner.
"""

from __future__ import annotations

import re

from torch import Tensor, nn

from .configuration_magicbert import MagicBertConfig
from .depthwise import DepthwiseConvolution
from .fused import Call, linear_gelu, linear_residual_norm
from .initialization import convolution_std
from .operator_base import Operator
from .segments import Segments


class PointwiseConvolution(nn.Linear):
    """A 1x1 convolution, which is a linear layer with a convolution's initial weights.

    Args:
        in_channels: width of the input.
        out_channels: width of the output.
        dropout: of the operator; enters the scale of the initial weights only.
    """

    def __init__(self, in_channels: int, out_channels: int, dropout: float) -> None:
        super().__init__(in_channels, out_channels)
        self.std = convolution_std(1, in_channels, dropout)

    def initialize(self, std: float) -> None:
        """Fills the weights; ``std`` is not used."""
        nn.init.normal_(self.weight, std=self.std)
        nn.init.zeros_(self.bias)


class SeparableConvolution(nn.Module):
    """Depthwise -> pointwise -> GELU -> dropout; padded positions count as zeros.

    As in NAS-BERT's code there is neither a norm nor a nonlinearity between the two convolutions.
    The dropout is the encoder's; that code had a dropout of its own there, off by default.
    """

    def __init__(
        self, config: MagicBertConfig, in_channels: int, out_channels: int, kernel_size: int
    ) -> None:
        super().__init__()
        dropout = config.hidden_dropout_prob
        self.depthwise = DepthwiseConvolution(in_channels, kernel_size, dropout, config.backend)
        self.pointwise = PointwiseConvolution(in_channels, out_channels, dropout)

    def flops(self, length: int) -> int:
        """Returns the forward FLOPs of one row."""
        kernel_size, in_channels = self.depthwise.weight.shape
        return 2 * length * in_channels * (kernel_size + self.pointwise.out_features)

    def forward(self, hidden_BSH: Tensor, segments: Segments, call: Call, stream: int) -> Tensor:
        """Returns the branch's output, without a residual."""
        mixed_BSH = self.depthwise(hidden_BSH, segments)
        return linear_gelu(self.pointwise, mixed_BSH, call, stream)

    def end(
        self,
        hidden_BSH: Tensor,
        segments: Segments,
        residual_BSH: Tensor,
        norm: nn.LayerNorm,
        call: Call,
        stream: int,
    ) -> Tensor:
        """Returns ``norm(residual + branch)``."""
        mixed_BSH = self.depthwise(hidden_BSH, segments)
        return linear_residual_norm(
            self.pointwise, mixed_BSH, residual_BSH, norm, call, stream, activation="gelu"
        )


class StackedConvolution(Operator):
    """NAS-BERT's two stacked sub-layers, each ``LN(x + SeparableConvolution(x))``."""

    pattern = re.compile(r"conv(\d+)")
    form = "conv{kernel}"
    example = "conv3"

    def __init__(self, config: MagicBertConfig, kernel_size: int) -> None:
        super().__init__(config)
        hidden_size, epsilon = config.hidden_size, config.layer_norm_eps
        self.first = SeparableConvolution(config, hidden_size, hidden_size, kernel_size)
        self.first_norm = nn.LayerNorm(hidden_size, eps=epsilon)
        self.second = SeparableConvolution(config, hidden_size, hidden_size, kernel_size)
        self.second_norm = nn.LayerNorm(hidden_size, eps=epsilon)

    @classmethod
    def sizes(cls, match: re.Match[str], hidden_size: int) -> dict[str, int]:
        """Reads the kernel size, which must be odd."""
        return {"kernel_size": _odd_kernel_size(match)}

    def flops(self, length: int) -> int:
        """Two separable convolutions."""
        return self.first.flops(length) + self.second.flops(length)

    def forward(self, hidden_BSH: Tensor, segments: Segments) -> Tensor:
        """Returns the next hidden state; positions up to ``2 (kernel // 2)`` away are seen."""
        call = self.begin(hidden_BSH)
        middle_BSH = self.first.end(hidden_BSH, segments, hidden_BSH, self.first_norm, call, 0)
        return self.second.end(middle_BSH, segments, middle_BSH, self.second_norm, call, 1)


class WidenedConvolution(Operator):
    """``LN(x + narrow(widen(x)))``: two separable convolutions, hidden -> inner -> hidden.

    The form with a free inner size, for spaces whose operators must be equally large.
    """

    pattern = re.compile(r"conv(\d+)x(\d+)")
    form = "conv{kernel}x{inner}"
    example = "conv3x1536"

    def __init__(self, config: MagicBertConfig, kernel_size: int, inner_size: int) -> None:
        super().__init__(config)
        self.widen = SeparableConvolution(config, config.hidden_size, inner_size, kernel_size)
        self.narrow = SeparableConvolution(config, inner_size, config.hidden_size, kernel_size)
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    @classmethod
    def sizes(cls, match: re.Match[str], hidden_size: int) -> dict[str, int]:
        """Reads the kernel size, which must be odd, and the inner size."""
        inner_size = int(match[2])
        if inner_size < 1:
            raise ValueError(f"operator {match[0]!r}: the inner size must be at least 1")
        return {"kernel_size": _odd_kernel_size(match), "inner_size": inner_size}

    def flops(self, length: int) -> int:
        """Two separable convolutions."""
        return self.widen.flops(length) + self.narrow.flops(length)

    def forward(self, hidden_BSH: Tensor, segments: Segments) -> Tensor:
        """Returns the next hidden state; positions up to ``2 (kernel // 2)`` away are seen."""
        call = self.begin(hidden_BSH)
        inner_BSI = self.widen(hidden_BSH, segments, call, 0)
        return self.narrow.end(inner_BSI, segments, hidden_BSH, self.norm, call, 1)


def _odd_kernel_size(match: re.Match[str]) -> int:
    kernel_size = int(match[1])
    if kernel_size % 2 == 0:
        raise ValueError(
            f"operator {match[0]!r}: the kernel size must be odd, so that it has a middle"
        )
    return kernel_size
