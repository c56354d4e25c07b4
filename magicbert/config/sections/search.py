"""The search."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from magicbert.config.fields import option


@dataclass(frozen=True, kw_only=True, slots=True)
class SearchSection:
    """Progressive shrinking of the space under limits (NAS-BERT 3.2.2; PS-op)."""

    seed: int = option(0, "seed of the sampled candidates", within="[0, 4294967295]")
    max_parameters: int = option(
        0, "most parameters of the exported encoder; 0 = no limit", within="[0, 1e12]"
    )
    min_parameters: int = option(0, "fewest parameters; 0 = no limit", within="[0, 1e12]")
    max_flops: float = option(
        0.0, "most forward FLOPs of one sequence of the row length; 0 = none", within="[0, 1e18]"
    )
    num_rounds: int = option(4, "rounds of shrinking", within="[0, 1000]")
    samples_per_round: int = option(1000, "architectures scored in a round (E)", within="[1, 1e7]")
    drop_fraction: float = option(
        0.3,
        "share of the surplus operators (beyond one per layer) that a round drops (R)",
        within="[0, 1)",
    )
    num_finalists: int = option(
        100, "candidates sampled in the shrunk space and scored (T)", within="[1, 1e7]"
    )
    num_dev_batches: int = option(
        5, "dev batches that score a candidate in a round", within="[1, 1e6]"
    )
    num_final_batches: int = option(20, "dev batches that rank the finalists", within="[1, 1e6]")
    rows_per_batch: int = option(32, "rows of one dev batch", within="[1, 1e6]")
    num_results: int = option(10, "architectures written", within="[1, 1e6]")
    num_random: int = option(
        4,
        "architectures drawn uniformly within the limits, written as baselines to retrain",
        within="[0, 1e6]",
    )

    def validate(self) -> Iterator[str]:
        """Yields the problems of this section, as ``field: what is wrong``."""
        if self.max_parameters and self.min_parameters > self.max_parameters:
            yield (
                f"min_parameters: {self.min_parameters} is above "
                f"max_parameters {self.max_parameters}"
            )
