"""What an architecture costs, exactly: a fixed part plus one addend per layer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import astuple, dataclass, fields, replace

from magicbert.errors import UserError
from magicbert.space.architecture import Architecture
from magicbert.space.search_space import SearchSpace


@dataclass(frozen=True, slots=True)
class Cost:
    """A cost, or a part of one.

    Attributes:
        parameters: number of trained values.
        flops: floating-point operations of one forward of one full row (a multiply-add is two).
        latency_ns: measured time of one forward, in whole nanoseconds, so that sums do not depend
            on their order; 0 = not measured.
    """

    parameters: int = 0
    flops: float = 0.0
    latency_ns: int = 0

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            self.parameters + other.parameters,
            self.flops + other.flops,
            self.latency_ns + other.latency_ns,
        )

    def __str__(self) -> str:
        latency = f", {self.latency_ms:.4g} ms" if self.latency_ns else ""
        return f"{self.parameters:,} parameters and {self.flops:.4g} FLOPs{latency}"

    @property
    def latency_ms(self) -> float:
        """Latency in milliseconds."""
        return self.latency_ns / 1e6


@dataclass(frozen=True, slots=True)
class CostModel:
    """Adds up what the operators of a path cost.

    Attributes:
        operators: cost of each operator, whichever layer holds it.
        fixed: what every architecture pays (embeddings).
    """

    operators: Mapping[str, Cost]
    fixed: Cost

    def of_operator(self, name: str) -> Cost:
        """Returns the cost of one operator.

        Raises:
            UserError: the operator has no entry.
        """
        if name not in self.operators:
            known = ", ".join(sorted(self.operators))
            raise UserError(f"operator {name!r} has no known cost; known: {known}")
        return self.operators[name]

    def cost(self, architecture: Architecture) -> Cost:
        """Returns the whole cost of an architecture."""
        return sum((self.of_operator(name) for name in architecture), start=self.fixed)

    def by_operator(self, architecture: Architecture) -> dict[str, Cost]:
        """Returns what each operator costs over all layers that hold it, without the fixed part."""
        totals: dict[str, Cost] = {}
        for name in architecture:
            totals[name] = totals.get(name, Cost()) + self.of_operator(name)
        return totals

    def range(self, space: SearchSpace) -> tuple[Cost, Cost]:
        """Returns the least and the largest of each figure over a space.

        The figures are bounded one by one: an architecture with both minima need not exist.
        """
        low, high = self.fixed, self.fixed
        for names in space.layers:
            costs = [self.of_operator(name) for name in names]
            sizes, flops, latencies = zip(*map(astuple, costs), strict=True)
            low += Cost(min(sizes), min(flops), min(latencies))
            high += Cost(max(sizes), max(flops), max(latencies))
        return low, high

    def with_latency(self, operators: Mapping[str, int], fixed: int) -> CostModel:
        """Returns the same costs with latencies, in nanoseconds.

        Args:
            operators: latency of each operator.
            fixed: what every architecture takes.
        """
        known = {
            name: replace(cost, latency_ns=operators[name]) for name, cost in self.operators.items()
        }
        return CostModel(known, replace(self.fixed, latency_ns=fixed))


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds on a cost, all inclusive; 0 = no bound.

    Attributes:
        max_parameters: most parameters.
        min_parameters: fewest parameters.
        max_flops: most FLOPs of one row.
        max_latency_ms: longest latency, in milliseconds.
    """

    max_parameters: int = 0
    min_parameters: int = 0
    max_flops: float = 0.0
    max_latency_ms: float = 0.0

    def __bool__(self) -> bool:
        return any(True for _ in self._given())

    def __str__(self) -> str:
        return ", ".join(
            f"{name} {value:g}" if isinstance(value, float) else f"{name} {value:,}"
            for name, value in self._given()
        )

    def admits(self, cost: Cost) -> bool:
        """Returns whether a cost keeps every bound."""
        return self.excess(cost) == 0.0

    def excess(self, cost: Cost) -> float:
        """Returns by how much the bounds are missed: the sum of the relative excesses."""
        excess = 0.0
        if self.max_parameters and cost.parameters > self.max_parameters:
            excess += cost.parameters / self.max_parameters - 1
        if self.min_parameters and cost.parameters < self.min_parameters:
            excess += 1 - cost.parameters / self.min_parameters
        if self.max_flops and cost.flops > self.max_flops:
            excess += cost.flops / self.max_flops - 1
        if self.max_latency_ms and cost.latency_ms > self.max_latency_ms:
            excess += cost.latency_ms / self.max_latency_ms - 1
        return excess

    def widened(self, slack: Cost) -> Limits:
        """Returns limits that every cost within ``slack`` of an admitted one keeps."""
        return Limits(
            self.max_parameters and self.max_parameters + slack.parameters,
            max(self.min_parameters - slack.parameters, 0),
            self.max_flops and self.max_flops + slack.flops,
            self.max_latency_ms and self.max_latency_ms + slack.latency_ms,
        )

    def _given(self) -> Iterator[tuple[str, int | float]]:
        for name in (field.name for field in fields(self)):
            if getattr(self, name):
                yield name, getattr(self, name)
