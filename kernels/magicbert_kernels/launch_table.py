"""Launch settings of the kernels: fixed numbers per device, read from ``launch_tables.json``.

Nothing is searched while a model trains: two runs, and two ranks of one run, must launch the same
programs. ``magicbert bench kernels --kernels.tune true`` searches on a GPU and rewrites the file.

A device's rows come first, then those of ``default``; of each kernel's rows the first that fits
decides. A row fits by width (number of features) and element type; the number of tokens is no
part of it, since it differs from batch to batch.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch

FILE = Path(__file__).with_name("launch_tables.json")
SCHEMA = "magicbert_kernels/launch-tables/1"
DEFAULT = "default"
DTYPES = ("float32", "bfloat16", "float16", "float64")
ROW_KEYS = {"max_width", "dtype", "settings"}

# What `trying` puts in the place of the table, by kernel.
_ON_TRIAL: dict[str, Mapping[str, int]] = {}


class LaunchTableError(RuntimeError):
    """The table is damaged, or has no row for a kernel."""


@dataclass(frozen=True, slots=True)
class LaunchRow:
    """Settings of one kernel for some widths and types.

    Attributes:
        settings: numbers that the launch takes, such as ``num_warps``.
        max_width: largest number of features that it is for; ``None`` = any.
        dtype: element type that it is for, such as ``bfloat16``; ``None`` = any.
    """

    settings: Mapping[str, int]
    max_width: int | None = None
    dtype: str | None = None

    def fits(self, width: int, dtype: str) -> bool:
        """Returns whether the row is for tensors of this width and type."""
        is_wide_enough = self.max_width is None or width <= self.max_width
        return is_wide_enough and self.dtype in (None, dtype)

    def as_json(self) -> dict[str, Any]:
        """Returns the row as it stands in the file."""
        limits = {"max_width": self.max_width, "dtype": self.dtype}
        kept = {name: value for name, value in limits.items() if value is not None}
        return {**kept, "settings": dict(self.settings)}


@dataclass(frozen=True, slots=True)
class LaunchTables:
    """The whole file.

    Attributes:
        choices: by kernel, the values of each setting that a search may try.
        devices: by device name, then by kernel, rows in the order in which they are asked.
    """

    choices: Mapping[str, Mapping[str, tuple[int, ...]]]
    devices: Mapping[str, Mapping[str, tuple[LaunchRow, ...]]]

    def find(self, kernel: str, width: int, dtype: str, device_name: str) -> Mapping[str, int]:
        """Returns the settings of the first row that fits.

        Raises:
            LaunchTableError: there is none.
        """
        for name in (device_name, DEFAULT):
            for row in self.devices.get(name, {}).get(kernel, ()):
                if row.fits(width, dtype):
                    return row.settings
        raise LaunchTableError(f"no launch settings for {kernel}, width {width}, {dtype}")


def launch_settings(
    kernel: str, width: int, dtype: torch.dtype, device: torch.device
) -> Mapping[str, int]:
    """Returns the settings that a kernel is launched with; the same for the whole process.

    Args:
        kernel: its name in the table, such as ``residual_norm_forward``.
        width: number of features of a row.
        dtype: type of the streamed tensors.
        device: where they are; the interpreter, on CPU tensors, takes the default's rows.

    Raises:
        LaunchTableError: the table has no row for it.
    """
    if kernel in _ON_TRIAL:
        return _ON_TRIAL[kernel]
    return _find(kernel, width, str(dtype).removeprefix("torch."), device)


@functools.cache
def _find(kernel: str, width: int, dtype: str, device: torch.device) -> Mapping[str, int]:
    return shipped_tables().find(kernel, width, dtype, device_name(device))


@functools.cache
def device_name(device: torch.device) -> str:
    """Returns the name under which a device stands in the table."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else DEFAULT


@contextmanager
def trying(kernel: str, settings: Mapping[str, int]) -> Iterator[None]:
    """Launches a kernel with other settings within the block; for benchmarks and tests alone."""
    former = _ON_TRIAL.get(kernel)
    _ON_TRIAL[kernel] = MappingProxyType(dict(settings))
    try:
        yield
    finally:
        del _ON_TRIAL[kernel]
        if former is not None:
            _ON_TRIAL[kernel] = former


@functools.cache
def shipped_tables() -> LaunchTables:
    """Returns the tables that came with this package."""
    return read_tables(FILE.read_text(encoding="utf-8"))


def read_again() -> None:
    """Forgets the tables, so that the next launch reads a file that was rewritten."""
    shipped_tables.cache_clear()
    _find.cache_clear()


def read_tables(text: str) -> LaunchTables:
    """Returns tables from JSON.

    Raises:
        LaunchTableError: it is no JSON, or not of this schema.
    """
    try:
        content = json.loads(text)
        if content["schema"] != SCHEMA:
            raise LaunchTableError(f"expected schema {SCHEMA}, found {content['schema']}")
        choices = {
            kernel: {name: tuple(map(read_number, values)) for name, values in by_name.items()}
            for kernel, by_name in content["choices"].items()
        }
        devices = {
            name: {kernel: tuple(map(read_row, rows)) for kernel, rows in kernels.items()}
            for name, kernels in content["devices"].items()
        }
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise LaunchTableError(f"launch tables cannot be read: {error!r}") from error
    return LaunchTables(choices, devices)


def read_row(content: Mapping[str, Any]) -> LaunchRow:
    """Returns one row of JSON; raises ``ValueError`` for what does not belong there."""
    if unknown := set(content) - ROW_KEYS:
        raise ValueError(f"unknown {sorted(unknown)} in a row")
    dtype, width = content.get("dtype"), content.get("max_width")
    if dtype not in (None, *DTYPES):
        raise ValueError(f"unknown dtype {dtype!r}")
    settings = {name: read_number(value) for name, value in content["settings"].items()}
    return LaunchRow(
        MappingProxyType(settings), None if width is None else read_number(width), dtype
    )


def read_number(value: Any) -> int:
    """Returns a whole number above 0; raises ``ValueError`` for anything else."""
    if type(value) is not int or value < 1:
        raise ValueError(f"{value!r} is no number above 0")
    return value


def write_tables(tables: LaunchTables) -> str:
    """Returns tables as JSON, one line per row, so that a change reads as what it is."""
    choices = [
        f"    {json.dumps(kernel)}: {json.dumps(by_name)}"
        for kernel, by_name in sorted(tables.choices.items())
    ]
    devices = [
        f"    {json.dumps(name)}: {{\n{_kernels_text(kernels)}\n    }}"
        for name, kernels in sorted(
            tables.devices.items(), key=lambda entry: device_order(entry[0])
        )
    ]
    return (
        f'{{\n  "schema": {json.dumps(SCHEMA)},\n'
        f'  "choices": {{\n{_lines(choices)}\n  }},\n'
        f'  "devices": {{\n{_lines(devices)}\n  }}\n}}\n'
    )


def device_order(name: str) -> tuple[bool, str]:
    """Sorts the default before all devices."""
    return name != DEFAULT, name


def _kernels_text(kernels: Mapping[str, tuple[LaunchRow, ...]]) -> str:
    texts = []
    for kernel, rows in sorted(kernels.items()):
        lines = [f"        {json.dumps(row.as_json())}" for row in rows]
        texts.append(f"      {json.dumps(kernel)}: [\n{_lines(lines)}\n      ]")
    return _lines(texts)


def _lines(items: list[str]) -> str:
    return ",\n".join(items)
