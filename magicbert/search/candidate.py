"""A scored architecture."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from magicbert.space import Architecture, Cost


@dataclass(frozen=True, slots=True)
class Candidate:
    """What the search knows of an architecture.

    Attributes:
        architecture: the path.
        loss: mean dev loss in nats.
        accuracy: share of the dev targets predicted right.
        cost: parameters and FLOPs.
        round: round (from 1) that scored it; the finalists' round comes last.
        num_batches: dev batches that scored it.
    """

    architecture: Architecture
    loss: float
    accuracy: float
    cost: Cost
    round: int
    num_batches: int

    @property
    def rank_key(self) -> tuple[float, str]:
        """Sorts the best first; equal losses in the order of their names."""
        return self.loss, str(self.architecture)

    def figure(self, name: str) -> float:
        """Returns what an objective minimises: ``loss``, ``parameters``, ``flops``, ``latency``."""
        if name == "loss":
            return self.loss
        return float(getattr(self.cost, "latency_ns" if name == "latency" else name))

    def to_json(self) -> dict[str, Any]:
        """Returns plain data, without the round."""
        return {
            "architecture": str(self.architecture),
            "loss": self.loss,
            "accuracy": self.accuracy,
            "parameters": self.cost.parameters,
            "flops": self.cost.flops,
            "latency_ms": self.cost.latency_ms or None,
            "num_batches": self.num_batches,
        }
