"""Bins of size and latency: small architectures are compared with small ones (NAS-BERT 3.2.2)."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from magicbert.space import Architecture, Cost


@dataclass(frozen=True, slots=True)
class Bins:
    """Equal steps from nothing to the largest cost.

    Bin b of B takes sizes above ``(b-1)/B`` of the largest and up to ``b/B`` of it. With latency,
    an architecture belongs to a bin only if its latency lies in the same bin of latencies; the
    others are too slow, or too fast to be measured by their size, and are left out.

    Attributes:
        number: B.
        largest: the largest size and latency that there are.
        by_latency: whether latency must lie in the bin of the size.
    """

    number: int
    largest: Cost
    by_latency: bool = False

    @classmethod
    def over(cls, number: int, costs: Iterable[Cost], *, by_latency: bool = False) -> Bins:
        """Returns the bins over some costs."""
        parameters, latency = 0, 0
        for cost in costs:
            parameters = max(parameters, cost.parameters)
            latency = max(latency, cost.latency_ns)
        return cls(number, Cost(parameters, latency_ns=latency), by_latency)

    def place(self, cost: Cost) -> int | None:
        """Returns the bin of a cost, from 1; ``None`` if its latency lies in another one."""
        size = self._step(cost.parameters, self.largest.parameters)
        if self.by_latency and self._step(cost.latency_ns, self.largest.latency_ns) != size:
            return None
        return size

    def sort(self, costs: dict[Architecture, Cost]) -> dict[int, list[Architecture]]:
        """Returns the architectures of each bin that has any, smallest bin first."""
        found: dict[int, list[Architecture]] = {}
        for architecture, cost in costs.items():
            place = self.place(cost)
            if place is not None:
                found.setdefault(place, []).append(architecture)
        return dict(sorted(found.items()))

    def _step(self, value: int, largest: int) -> int:
        return max(1, math.ceil(self.number * value / largest)) if largest else 1
