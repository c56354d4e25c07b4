"""What a shard holds: for each group, which values of which parameters stand where."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import astuple, dataclass
from typing import Any

from magicbert.training.checkpoints.fields import FormatError, take, take_whole, whole
from magicbert.training.path_sparse.placement import Piece


@dataclass(frozen=True)
class GroupLayout:
    """One group's flat master on one rank.

    Attributes:
        length: values in the master, padding included.
        parameters: full names of the group's parameters.
        pieces: where their values are.
    """

    length: int
    parameters: tuple[str, ...]
    pieces: tuple[Piece, ...]

    def to_json(self) -> dict[str, Any]:
        """Returns JSON data."""
        pieces = [list(astuple(piece)) for piece in self.pieces]
        return {"length": self.length, "parameters": list(self.parameters), "pieces": pieces}

    @classmethod
    def parse(cls, data: Any) -> GroupLayout:
        """Reads JSON data, every field checked.

        Raises:
            FormatError: a piece is of no parameter, outside the master, or over another one.
        """
        length = take_whole(data, "length")
        parameters = tuple(str(name) for name in take(data, "parameters", list))
        pieces = tuple(parse_piece(numbers) for numbers in take(data, "pieces", list))
        end = 0
        for piece in sorted(pieces, key=lambda piece: piece.offset):
            is_known = piece.parameter < len(parameters)
            if not is_known or piece.offset < end or piece.offset + piece.length > length:
                raise FormatError(f"a piece does not fit into its group: {astuple(piece)}")
            end = piece.offset + piece.length
        return cls(length, parameters, pieces)


@dataclass(frozen=True)
class Layout:
    """The groups of one rank.

    Attributes:
        groups: by name.
    """

    groups: Mapping[str, GroupLayout]

    @classmethod
    def of(cls, optimizer: Any) -> Layout:
        """Describes the masters of a path-sparse optimizer on this rank."""
        return cls(
            {
                group["name"]: GroupLayout(
                    group["params"][0].numel(),
                    tuple(group["parameter_names"]),
                    tuple(optimizer.pieces(number)),
                )
                for number, group in enumerate(optimizer.param_groups)
            }
        )

    def to_text(self) -> str:
        """Returns what the header of a shard carries."""
        groups = {name: group.to_json() for name, group in self.groups.items()}
        return json.dumps(groups, separators=(",", ":"))

    @classmethod
    def parse(cls, text: str) -> Layout:
        """Reads `to_text` back.

        Raises:
            FormatError: it is no layout.
        """
        try:
            data = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise FormatError(f"the layout is no JSON: {error}") from error
        if not isinstance(data, dict):
            raise FormatError("the layout is no JSON object")
        groups = {}
        for name, group in data.items():
            try:
                groups[name] = GroupLayout.parse(group)
            except FormatError as error:
                raise FormatError(f"layout of {name}: {error}") from error
        return cls(groups)


def parse_piece(numbers: Any) -> Piece:
    """Reads ``[parameter, start, length, offset]``."""
    if not isinstance(numbers, list) or len(numbers) != 4:
        raise FormatError("a piece must be four numbers")
    return Piece(*(whole(number, "piece") for number in numbers))
