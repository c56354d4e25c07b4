"""A table of latencies, the sum that predicts a whole model from it, and how far it is off.

A path's latency is predicted as embeddings + operators + head (NAS-BERT 3.2.2). Parts that run
alone are not what they are in a chain: caches hold other data, and a model's own calls add to
them. So the table is checked against whole models of random architectures, and a limit is held
with the worst error that was seen.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from magicbert.errors import UserError
from magicbert.search.timing import Timing
from magicbert.space import Architecture, CostModel

QUANTILES = (0.5, 0.9, 1.0)


@dataclass(frozen=True, slots=True)
class Check:
    """A whole model that was measured beside the parts.

    Attributes:
        architecture: of the model.
        predicted_ns: the sum of its parts.
        measured_ns: median time of the model.
    """

    architecture: Architecture
    predicted_ns: int
    measured_ns: int

    @property
    def error(self) -> float:
        """Relative error of the prediction: above 0 where the model is slower than predicted."""
        return self.measured_ns / self.predicted_ns - 1


@dataclass(frozen=True)
class LatencyTable:
    """What was measured, where and how.

    Attributes:
        facts: machine, settings and sizes of the model; a table of other facts says nothing.
        embeddings: from token ids to the first hidden state.
        head: from the last hidden state to the logits of a classification.
        operators: each alone, in evaluation mode.
        checks: whole models.
    """

    facts: Mapping[str, Any]
    embeddings: Timing
    head: Timing
    operators: Mapping[str, Timing]
    checks: tuple[Check, ...] = ()

    @property
    def fixed_ns(self) -> int:
        """What every architecture takes."""
        return self.embeddings.median_ns + self.head.median_ns

    def predict(self, architecture: Architecture) -> int:
        """Returns the latency of a whole model, in nanoseconds."""
        return self.fixed_ns + sum(self.operators[name].median_ns for name in architecture)

    def extend(self, costs: CostModel) -> CostModel:
        """Returns the costs with these latencies."""
        operators = {name: timing.median_ns for name, timing in self.operators.items()}
        return costs.with_latency(operators, self.fixed_ns)

    @property
    def error_bound(self) -> float:
        """The largest share by which a checked model was slower than predicted; at least 0."""
        return max([0.0, *(check.error for check in self.checks)])

    def error_quantiles(self) -> dict[str, float]:
        """Returns quantiles of the absolute relative error over the checks."""
        errors = [abs(check.error) for check in self.checks] or [0.0]
        return {f"{q:g}": float(np.quantile(errors, q)) for q in QUANTILES}

    def error_record(self) -> dict[str, Any]:
        """Returns what a result that rests on predictions says of their error."""
        return {
            "error_quantiles": self.error_quantiles(),
            "error_bound": self.error_bound,
            "num_checks": len(self.checks),
        }

    def limit_on_prediction(self, max_latency_ms: float) -> float:
        """Returns the largest prediction, in ms, that keeps a limit with the error added."""
        return max_latency_ms / (1 + self.error_bound)

    def check_facts(self, facts: Mapping[str, Any], source: str) -> None:
        """Raises `UserError` with every fact in which the table differs from here and now.

        Args:
            facts: of this machine and these settings.
            source: what messages call the table.
        """
        names = dict.fromkeys((*facts, *self.facts))
        problems = [
            f"{name} is {self.facts.get(name)!r} there and {facts.get(name)!r} here"
            for name in names
            if self.facts.get(name) != facts.get(name)
        ]
        if problems:
            raise UserError(f"{source}: latencies of something else: {'; '.join(problems)}")

    def to_json(self) -> dict[str, Any]:
        """Returns plain data that `from_json` reads back."""
        return {
            "facts": dict(self.facts),
            "embeddings": dataclasses.asdict(self.embeddings),
            "head": dataclasses.asdict(self.head),
            "operators": {
                name: dataclasses.asdict(timing) for name, timing in self.operators.items()
            },
            "checks": [
                {**dataclasses.asdict(check), "architecture": str(check.architecture)}
                for check in self.checks
            ],
            "error_quantiles": self.error_quantiles(),
            "error_bound": self.error_bound,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> LatencyTable:
        """Reads what `to_json` wrote."""
        return cls(
            data["facts"],
            Timing(**data["embeddings"]),
            Timing(**data["head"]),
            {name: Timing(**timing) for name, timing in data["operators"].items()},
            tuple(
                Check(
                    Architecture.parse(row["architecture"]), row["predicted_ns"], row["measured_ns"]
                )
                for row in data["checks"]
            ),
        )
