"""What a file of `magicbert.bench.kernels.cases` offers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from magicbert_kernels.backend import Backend

from magicbert.bench.kernels.operation import Direction, Function, Operation
from magicbert.bench.kernels.sizes import Size
from magicbert.config.sections import KernelBenchSection


@dataclass(frozen=True, slots=True)
class Place:
    """Where and how an operation is measured.

    Attributes:
        size: of the inputs.
        device: where they are.
        backend: magicbert's on this device.
        setting: the user's.
    """

    size: Size
    device: torch.device
    backend: Backend
    setting: KernelBenchSection


@dataclass(frozen=True, slots=True)
class Family:
    """One operation with everyone who computes it.

    Attributes:
        name: as the tables say.
        directions: what is measured of it.
        operation: makes the operation at a place.
        rivals: by name, what returns a function of the operation's inputs, or raises
            `magicbert.bench.registry.AbsentError`; magicbert's own is the first.
        kernels: names in the launch table of the kernels that it launches, by direction.
        unit: what its rate counts: bytes or operations of the floor.
    """

    name: str
    directions: tuple[Direction, ...]
    operation: Callable[[Place], Operation]
    rivals: Callable[[Place], Mapping[str, Callable[[], Function]]]
    kernels: Mapping[Direction, tuple[str, ...]]
    unit: Literal["B", "FLOP"] = "B"
