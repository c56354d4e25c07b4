"""One architecture of a tabular benchmark: what it costs, and what was measured of it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from magicbert.space import Architecture, Cost

KINDS = ("loss", "accuracy", "score")


@dataclass(frozen=True, order=True, slots=True)
class Measure:
    """What was measured in one training: a column of the file.

    Attributes:
        kind: ``loss`` (valid split, nats per masked token), ``accuracy`` (of the masked tokens)
            or ``score`` (of a downstream task; higher is better).
        name: of the training budget, for a score of the task.
        seed: of the training.
    """

    kind: str
    name: str
    seed: int

    def __str__(self) -> str:
        return f"{self.kind}/{self.name}/{self.seed}"


@dataclass(frozen=True, slots=True)
class TableRow:
    """One architecture.

    Attributes:
        architecture: which one.
        parameters: number of trained values.
        flops: floating-point operations of one forward of one full row.
        values: what was measured; a measure that was not taken is absent.
    """

    architecture: Architecture
    parameters: int
    flops: float
    values: Mapping[Measure, float]

    @property
    def cost(self) -> Cost:
        """Parameters and FLOPs."""
        return Cost(self.parameters, self.flops)

    def by_seed(self, kind: str, name: str) -> dict[int, float]:
        """Returns what was measured of one kind and budget (or task), by seed."""
        found = {m.seed: v for m, v in self.values.items() if (m.kind, m.name) == (kind, name)}
        return dict(sorted(found.items()))

    def mean(self, kind: str, name: str) -> float | None:
        """Returns the mean over the seeds; ``None`` if nothing was measured."""
        found = self.by_seed(kind, name)
        return math.fsum(found.values()) / len(found) if found else None
