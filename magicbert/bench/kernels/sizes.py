"""Sizes of the cases, by device: what a training step has on a GPU, less on a CPU."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

from magicbert.config.sections import KernelBenchSection
from magicbert.errors import UserError

TOKENS = {"cuda": (65536, 8192), "cpu": (2048,)}
WIDTHS = {"cuda": (768, 1024), "cpu": (768,)}
DTYPES = {"cuda": ("bfloat16",), "cpu": ("float32",)}
LENGTH = 128
NAMES = ("float32", "bfloat16", "float16")


@dataclass(frozen=True, slots=True)
class Size:
    """One size of a case.

    Attributes:
        tokens: of the batch, a multiple of the length or less than it.
        width: features of a token.
        dtype: type of the activations.
    """

    tokens: int
    width: int
    dtype: torch.dtype

    @property
    def rows(self) -> int:
        """Rows of the batch."""
        return max(self.tokens // LENGTH, 1)

    @property
    def length(self) -> int:
        """Tokens per row."""
        return min(self.tokens, LENGTH)

    @property
    def shape(self) -> tuple[int, int, int]:
        """``(rows, length, width)``."""
        return self.rows, self.length, self.width

    @property
    def pass_bytes(self) -> int:
        """Bytes of the activations once through memory."""
        return self.rows * self.length * self.width * self.dtype.itemsize

    @property
    def variant(self) -> dict[str, Any]:
        """Columns of the table."""
        name = str(self.dtype).removeprefix("torch.")
        return {"tokens": self.rows * self.length, "width": self.width, "type": name}


def sizes(setting: KernelBenchSection, device: torch.device) -> Iterator[Size]:
    """Yields the sizes that are measured, the most telling first.

    Raises:
        UserError: a type that no kernel takes.
    """
    for name in setting.dtypes:
        if name not in NAMES:
            raise UserError(f"kernels.dtypes: {name!r} is not one of {', '.join(NAMES)}")
    for dtype in setting.dtypes or DTYPES[device.type]:
        for width in setting.widths or WIDTHS[device.type]:
            for tokens in setting.tokens or TOKENS[device.type]:
                yield Size(tokens, width, getattr(torch, dtype))
