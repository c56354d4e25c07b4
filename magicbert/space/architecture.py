"""An architecture: one operator name per layer, as an immutable value."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from magicbert.errors import UserError

OPERATOR_NAME = re.compile(r"[a-z][a-z0-9]*")


@dataclass(frozen=True, order=True, slots=True)
class Architecture:
    """One operator per layer, first layer first.

    Attributes:
        operators: names such as ``mha12``, ``ffn``, ``conv3``.
    """

    operators: tuple[str, ...]

    def __post_init__(self) -> None:
        for name in self.operators:
            if not OPERATOR_NAME.fullmatch(name):
                raise UserError(f"operator name {name!r} must be lower-case letters and digits")

    def __str__(self) -> str:
        return "-".join(self.operators)

    def __len__(self) -> int:
        return len(self.operators)

    def __iter__(self) -> Iterator[str]:
        return iter(self.operators)

    def __getitem__(self, layer: int) -> str:
        return self.operators[layer]

    @classmethod
    def parse(cls, text: str) -> Architecture:
        """Reads the canonical string, such as ``mha12-ffn-conv3``.

        Raises:
            UserError: a name is empty or has other characters than lower-case letters and digits.
        """
        return cls(tuple(text.strip().split("-")))

    def replace(self, layer: int, operator: str) -> Architecture:
        """Returns a copy with another operator in one layer."""
        operators = list(self.operators)
        operators[layer] = operator
        return Architecture(tuple(operators))

    def distance(self, other: Architecture) -> int:
        """Returns the Hamming distance: in how many layers the two differ."""
        return sum(a != b for a, b in zip(self.operators, other.operators, strict=True))


def family_of(operator: str) -> str:
    """Returns the letters an operator's name begins with: ``conv3x512`` is a ``conv``."""
    match = re.match(r"[a-z]+", operator)
    return match[0] if match else operator
