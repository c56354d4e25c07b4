"""The registry of operators: a name such as ``mha12`` or ``mha4w256`` -> a module."""

from __future__ import annotations

import copy
import difflib
import re

from .attention import Attention
from .configuration_magicbert import MagicBertConfig
from .convolution import StackedConvolution, WidenedConvolution
from .feed_forward import FeedForward
from .operator_base import Operator
from .operator_names import split_width, width_of
from .skip import Skip
from .transfer import Transferred

OPERATORS: tuple[type[Operator], ...] = (
    Attention,
    FeedForward,
    StackedConvolution,
    WidenedConvolution,
    Skip,
)


def check_operator(name: str, hidden_size: int) -> None:
    """Raises `ValueError` if no operator has this name or its sizes do not fit."""
    kind, match = find_operator(name)
    width = width_of(name, hidden_size)
    if width < 1:
        raise ValueError(f"operator {name!r}: the width must be at least 1")
    kind.sizes(match, width)


def build_operator(name: str, config: MagicBertConfig) -> Operator:
    """Builds the operator of a name, with new weights.

    Raises:
        ValueError: no operator has this name, or its sizes do not fit the configuration.
    """
    kind, match = find_operator(name)
    width = width_of(name, config.hidden_size)
    if width != config.hidden_size:
        config = copy.copy(config)
        config.hidden_size = width
    return kind.of_match(match, config)


def build_layer(name: str, config: MagicBertConfig, from_size: int) -> Operator | Transferred:
    """Builds the operator of a name behind a stream of some width.

    Args:
        name: of the operator.
        config: of the encoder.
        from_size: width of the stream before it; where the operator has another one, a learned
            map stands between the two.
    """
    operator, width = build_operator(name, config), width_of(name, config.hidden_size)
    return operator if width == from_size else Transferred(operator, from_size, width)


def find_operator(name: str) -> tuple[type[Operator], re.Match[str]]:
    """Returns the class that a name stands for, and how it reads the name without its width.

    Raises:
        ValueError: no operator has this name.
    """
    for kind in OPERATORS:
        match = kind.pattern.fullmatch(split_width(name)[0])
        if match:
            return kind, match
    forms = ", ".join(kind.form for kind in OPERATORS)
    raise ValueError(f"unknown operator {name!r}{_suggestion(name)}; operators are {forms}")


def _suggestion(name: str) -> str:
    """Returns ``, did you mean ...?`` if the letters are nearly an operator's."""
    letters = re.match(r"[a-zA-Z_]*", name)[0]  # type: ignore[index]
    stems = {re.match(r"[a-z]*", kind.example)[0]: kind for kind in OPERATORS}  # type: ignore[index]
    close = difflib.get_close_matches(letters.lower(), stems, n=1, cutoff=0.5)
    if not close:
        return ""
    mended = close[0] + name[len(letters) :]
    known = any(kind.pattern.fullmatch(mended) for kind in OPERATORS)
    return f", did you mean {mended if known else stems[close[0]].example!r}?"
