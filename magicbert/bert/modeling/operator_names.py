"""What an operator's name says beside its kind: its width, as in ``mha4w256``."""

from __future__ import annotations

import re

WIDTH = re.compile(r"(.+?)w(\d+)")


def split_width(name: str) -> tuple[str, int | None]:
    """Returns the name without its width, and the width; ``None`` = the name states none."""
    match = WIDTH.fullmatch(name)
    return (match[1], int(match[2])) if match else (name, None)


def width_of(name: str, hidden_size: int) -> int:
    """Returns the width of the residual stream that an operator works on.

    Args:
        name: of the operator.
        hidden_size: width of operators that state none.
    """
    width = split_width(name)[1]
    return hidden_size if width is None else width


def with_width(name: str, width: int) -> str:
    """Returns the name of the operator at a width: ``ffn`` at 256 is ``ffnw256``."""
    return f"{name}w{width}"
