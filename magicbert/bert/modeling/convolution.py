"""Separable convolutions, ``conv{kernel}`` and ``conv{kernel}x{inner}``.

Shape suffixes: B rows, S positions, H hidden, I inner.
"""

from __future__ import annotations

import re

import torch.nn.functional as F
from torch import Tensor, nn

from .configuration_magicbert import MagicBertConfig
from .depthwise import DepthwiseConvolution
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
    """Zero padded positions -> depthwise -> pointwise -> GELU -> dropout.

    As in NAS-BERT's code there is neither a norm nor a nonlinearity between the two convolutions.
    The dropout is the encoder's; that code had a dropout of its own there, off by default.
    """

    def __init__(
        self, config: MagicBertConfig, in_channels: int, out_channels: int, kernel_size: int
    ) -> None:
        super().__init__()
        dropout = config.hidden_dropout_prob
        self.depthwise = DepthwiseConvolution(in_channels, kernel_size, dropout)
        self.pointwise = PointwiseConvolution(in_channels, out_channels, dropout)
        self.dropout = nn.Dropout(dropout)

    def flops(self, length: int) -> int:
        """Returns the forward FLOPs of one row."""
        kernel_size, in_channels = self.depthwise.weight.shape
        return 2 * length * in_channels * (kernel_size + self.pointwise.out_features)

    def forward(self, hidden_BSH: Tensor, segments: Segments) -> Tensor:
        """Returns the branch's output, without the residual."""
        mixed_BSH = self.depthwise(segments.hide_padding(hidden_BSH), segments)
        branch_BSH: Tensor = self.dropout(F.gelu(self.pointwise(mixed_BSH)))
        return branch_BSH


class StackedConvolution(Operator):
    """NAS-BERT's two stacked sub-layers, each ``LN(x + SeparableConvolution(x))``."""

    pattern = re.compile(r"conv(\d+)")
    form = "conv{kernel}"
    example = "conv3"

    def __init__(self, config: MagicBertConfig, kernel_size: int) -> None:
        super().__init__()
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
        hidden_BSH = self.first_norm(hidden_BSH + self.first(hidden_BSH, segments))
        next_BSH: Tensor = self.second_norm(hidden_BSH + self.second(hidden_BSH, segments))
        return next_BSH


class WidenedConvolution(Operator):
    """``LN(x + narrow(widen(x)))``: two separable convolutions, hidden -> inner -> hidden.

    The form with a free inner size, for spaces whose operators must be equally large.
    """

    pattern = re.compile(r"conv(\d+)x(\d+)")
    form = "conv{kernel}x{inner}"
    example = "conv3x1536"

    def __init__(self, config: MagicBertConfig, kernel_size: int, inner_size: int) -> None:
        super().__init__()
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
        inner_BSI = self.widen(hidden_BSH, segments)
        next_BSH: Tensor = self.norm(hidden_BSH + self.narrow(inner_BSI, segments))
        return next_BSH


def _odd_kernel_size(match: re.Match[str]) -> int:
    kernel_size = int(match[1])
    if kernel_size % 2 == 0:
        raise ValueError(
            f"operator {match[0]!r}: the kernel size must be odd, so that it has a middle"
        )
    return kernel_size
