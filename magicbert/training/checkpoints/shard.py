"""One rank's tensors in a safetensors file, which says in its header how they are laid out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from magicbert.training.checkpoints.fields import FormatError
from magicbert.training.checkpoints.layout import Layout
from magicbert.training.path_sparse.state import MASTER, MOMENTS

BUFFER = "buffer"
LAYOUT = "layout"


@dataclass(frozen=True)
class ShardData:
    """What a rank has to save.

    Attributes:
        tensors: ``group:part`` and, of one rank, ``buffer:name``.
        layout: of the groups.
    """

    tensors: Mapping[str, Tensor]
    layout: Layout

    @property
    def num_bytes(self) -> int:
        """Size of the tensors."""
        return sum(value.numel() * value.element_size() for value in self.tensors.values())

    def write(self, path: Path) -> None:
        """Writes the file."""
        tensors = {name: value.detach().cpu().contiguous() for name, value in self.tensors.items()}
        save_file(tensors, path, {LAYOUT: self.layout.to_text()})


class Shard:
    """A shard to read from, as much as is asked for.

    Args:
        path: a file whose digest is right; what it says is checked against its layout.

    Attributes:
        layout: of the groups.
        parts: group -> names of its parts.

    Raises:
        FormatError: it is no safetensors file, or the tensors do not fit its layout.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._file = open_file(path)
            header = self._file.metadata() or {}
            self.layout = Layout.parse(header.get(LAYOUT, ""))
            self.parts = self._examine()
        except (OSError, SafetensorError, FormatError) as error:
            raise FormatError(f"{path}: {error}") from error

    def _examine(self) -> dict[str, set[str]]:
        """Compares names, shapes and number formats with the layout."""
        parts: dict[str, set[str]] = {name: set() for name in self.layout.groups}
        for key in self._file.keys():  # noqa: SIM118 - a file, not a mapping
            group, _, part = key.rpartition(":")
            if key.startswith(f"{BUFFER}:"):
                continue
            if group not in parts:
                raise FormatError(f"{key} is of no group of the layout")
            tensor = self._file.get_slice(key)
            length = self.layout.groups[group].length
            is_scalar = tensor.get_shape() == [] and part != MASTER
            if not is_scalar and (tensor.get_shape() != [length] or tensor.get_dtype() != "F32"):
                raise FormatError(f"{key} must be {length} values of fp32")
            parts[group].add(part)
        for name, found in parts.items():
            if found not in ({MASTER}, {MASTER, *MOMENTS}):
                raise FormatError(f"{name}: some of its parts are missing, found {sorted(found)}")
        return parts

    def tensor(self, key: str) -> Tensor:
        """Returns a whole tensor.

        Raises:
            FormatError: there is none of that name.
        """
        try:
            value: Tensor = self._file.get_tensor(key)
        except SafetensorError as error:
            raise FormatError(f"{self.path}: {key}: {error}") from error
        return value

    def tensors(self) -> dict[str, Tensor]:
        """Returns all tensors."""
        return {key: self.tensor(key) for key in self._file.keys()}  # noqa: SIM118

    def is_scalar(self, key: str) -> bool:
        """Whether a tensor is a single number, such as a count of steps."""
        return bool(self._file.get_slice(key).get_shape() == [])

    def values(self, key: str, start: int, stop: int) -> Tensor:
        """Returns some values of a flat tensor; no others are read."""
        values: Tensor = self._file.get_slice(key)[start:stop]
        return values


def open_file(path: Path) -> Any:
    """Opens a safetensors file; the package says nothing about the types of its methods."""
    return safe_open(path, framework="pt")
