"""What every operator is: ``(hidden, segments) -> hidden``, residual and norm included."""

from __future__ import annotations

import re
from typing import ClassVar

from torch import Tensor, nn

from .configuration_magicbert import MagicBertConfig
from .fused import Call
from .segments import Segments


class Operator(nn.Module):
    """Base of the operators; all are post-LN: ``y = LN(x + f(x))``.

    A new operator is one file with a subclass, and one line in ``operators.py``.

    Attributes:
        pattern: matches the whole of an operator's name.
        form: the name's form, for messages.
        example: a valid name, for messages.
        backend: which kernels to use, as the configuration says.
        dropout: of every branch, ahead of its residual.

    Args:
        config: sizes, dropout and backend.
    """

    pattern: ClassVar[re.Pattern[str]]
    form: ClassVar[str]
    example: ClassVar[str]

    def __init__(self, config: MagicBertConfig) -> None:
        super().__init__()
        self.backend = config.backend
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    @classmethod
    def sizes(cls, match: re.Match[str], hidden_size: int) -> dict[str, int]:
        """Reads the sizes that a name states.

        Args:
            match: of `pattern` on the name.
            hidden_size: width of the encoder.

        Returns:
            The keyword arguments of ``__init__`` beside the configuration.

        Raises:
            ValueError: the sizes do not fit; the message says why and what to do.
        """
        raise NotImplementedError

    @classmethod
    def of_match(cls, match: re.Match[str], config: MagicBertConfig) -> Operator:
        """Builds the operator that a name stands for."""
        return cls(config, **cls.sizes(match, config.hidden_size))

    def begin(self, hidden_BSH: Tensor) -> Call:
        """Returns how this call of the operator runs what stands between its products."""
        return Call.of(self.backend, hidden_BSH, self.dropout)

    def flops(self, length: int) -> int:
        """Returns the forward FLOPs of one row: 2 per multiply-add; elementwise work is left out.

        Args:
            length: positions of the row, without padding.
        """
        raise NotImplementedError

    def forward(self, hidden_BSH: Tensor, segments: Segments) -> Tensor:
        """Returns the next hidden state; same shape."""
        raise NotImplementedError
