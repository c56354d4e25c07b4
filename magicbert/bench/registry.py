"""What is measured and who takes part: the types that all targets of ``magicbert bench`` share.

A target (``kernels``, ``step``, ``data``) is a list of cases in the order of their worth. A case
builds a trial: everyone who does the same work on the same inputs, the least that the work must
move and compute, and how right an answer has to be.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import torch

OWN = "magicbert"
Call: TypeAlias = Callable[[int], Any]


class AbsentError(Exception):
    """A peer cannot take part; the message says why, in a few words."""


@dataclass(frozen=True, slots=True)
class Floor:
    """The least that the work must move and compute.

    Attributes:
        bytes: bytes read and written if every input is read once and every output written once.
        flops: floating-point operations, two for a multiplication with addition.
        matmul: sizes ``(m, k, n)`` of the matrix product that the operations are compared with;
            empty = a large square one.
        dtype: type that the operations are done in.
    """

    bytes: int = 0
    flops: int = 0
    matmul: tuple[int, ...] = ()
    dtype: torch.dtype = torch.float32


@dataclass(frozen=True, slots=True)
class Verdict:
    """How far an answer is from the right one.

    Attributes:
        error: the largest difference, in units that the case chooses.
        allowed: the largest that counts as right.
    """

    error: float
    allowed: float

    @property
    def is_right(self) -> bool:
        """Whether the contender may be timed; NaN is never right."""
        return self.error <= self.allowed


@dataclass(frozen=True, slots=True)
class Contender:
    """One way to do the work.

    Attributes:
        name: as in the table.
        call: does the work once, on the input set with this number (modulo their count).
    """

    name: str
    call: Call

    @property
    def is_own(self) -> bool:
        """Whether it is magicbert's."""
        return self.name == OWN


@dataclass(slots=True)
class Lineup:
    """Collects who takes part and who is absent.

    Attributes:
        contenders: in the order of the table.
        absent: why, by name.
    """

    contenders: list[Contender] = field(default_factory=list)
    absent: dict[str, str] = field(default_factory=dict)

    def add(self, name: str, make: Callable[[], Call]) -> None:
        """Adds what ``make`` returns, or notes why it raised `AbsentError`."""
        try:
            self.contenders.append(Contender(name, make()))
        except AbsentError as error:
            self.absent[name] = str(error)


@dataclass(frozen=True, slots=True)
class Trial:
    """A case that is ready to run.

    Attributes:
        lineup: who takes part.
        judge: compares a contender's answer on fresh inputs with the right one.
        floor: the least work.
        units: how much a call does, for rates: tokens, bytes, bytes of text.
        num_sets: number of input sets, over which calls rotate so that caches hold none.
        facts: figures without a clock, shown beside the times.
        close: lets go of what would outlive the trial.
    """

    lineup: Lineup
    judge: Callable[[Contender], Verdict]
    floor: Floor
    units: int
    num_sets: int = 1
    facts: Mapping[str, float | str] = field(default_factory=dict)
    close: Callable[[], None] = lambda: None


@dataclass(frozen=True, slots=True)
class Case:
    """One line of a table.

    Attributes:
        name: what is done; lines of one name make one table.
        variant: sizes and types, by column.
        build: makes the trial on a device.
        unit: what ``units`` counts: ``B``, ``FLOP`` or ``tokens``.
        is_replayable: on a GPU, a call can also be captured in a CUDA graph.
        is_host_work: it runs on the processor, whatever the device is.
    """

    name: str
    variant: Mapping[str, int | str]
    build: Callable[[torch.device], Trial]
    unit: str = "B"
    is_replayable: bool = True
    is_host_work: bool = False

    @property
    def key(self) -> str:
        """Tells it from every other case of its target."""
        return case_key(self.name, self.variant)


def case_key(name: str, variant: Mapping[str, Any]) -> str:
    """Returns the key of a case, also for a row of a record."""
    return json.dumps([name, dict(variant)], sort_keys=True)
