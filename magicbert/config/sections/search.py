"""The search."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from magicbert.config.fields import option


@dataclass(frozen=True, kw_only=True, slots=True)
class SearchSection:
    """Who scores, which architectures are scored, and under which limits."""

    scorer: Literal["checkpoint", "table", "callable"] = option(
        "checkpoint",
        "who says how good an architecture is: the run's trained supernet, a tabular benchmark, or "
        "a function of yours",
    )
    table: str = option("", "for 'table': CSV file of the tabular benchmark")
    table_budget: str = option(
        "", "for 'table': which of its training budgets; empty = the one that covers the most"
    )
    callable: str = option(
        "", "for 'callable': module:name of a function (architecture, batch) -> loss"
    )
    strategy: Literal[
        "shrink-operators", "shrink-architectures", "evolution", "halving", "random"
    ] = option("shrink-operators", "which architectures are scored; docs/search.md explains each")
    seed: int = option(0, "seed of the sampled candidates", within="[0, 4294967295]")
    max_parameters: int = option(
        0, "most parameters of the exported encoder; 0 = no limit", within="[0, 1e12]"
    )
    min_parameters: int = option(0, "fewest parameters; 0 = no limit", within="[0, 1e12]")
    max_flops: float = option(
        0.0, "most forward FLOPs of one sequence of the row length; 0 = none", within="[0, 1e18]"
    )
    max_latency_ms: float = option(
        0.0,
        "longest latency in milliseconds, as `latency` has it measured, its error added; 0 = none",
        within="[0, 1e9]",
    )
    num_rounds: int = option(4, "rounds of shrinking, or generations", within="[0, 1000]")
    samples_per_round: int = option(1000, "architectures scored in a round (E)", within="[1, 1e7]")
    drop_fraction: float = option(
        0.3,
        "share of the surplus operators (beyond one per layer) that a round drops (R)",
        within="[0, 1)",
    )
    pool_size: int = option(
        10_000, "for 'shrink-architectures': random architectures to begin with", within="[1, 1e7]"
    )
    num_bins: int = option(10, "for 'shrink-architectures': bins of size (B)", within="[1, 1e4]")
    kept_per_bin: int = option(
        10, "for 'shrink-architectures': architectures that stay in a bin (m)", within="[1, 1e6]"
    )
    bin_by: Literal["size", "size-and-latency"] = option(
        "size",
        "for 'shrink-architectures': whether those whose latency lies in another bin are left out",
    )
    population_size: int = option(
        50, "for 'evolution': the fittest of all, who have children", within="[1, 1e6]"
    )
    crossover_fraction: float = option(
        0.5, "for 'evolution': share of the children that have two parents", within="[0, 1]"
    )
    mutation_rate: float = option(
        0.1, "for 'evolution': chance of each layer to be drawn anew", within="[0, 1]"
    )
    objectives: tuple[Literal["loss", "parameters", "flops", "latency"], ...] = option(
        ("loss",), "for 'evolution': what makes parents fit; several of them: by Pareto fronts"
    )
    confidence: float = option(
        0.95,
        "for 'halving': chance that the best architecture is never given up; 0 = no promise, the "
        "worse half leaves",
        within="[0, 1)",
    )
    num_finalists: int = option(
        100, "candidates ranked at the end, on more dev batches (T)", within="[1, 1e7]"
    )
    num_dev_batches: int = option(
        5, "dev batches that score a candidate in a round", within="[1, 1e6]"
    )
    num_final_batches: int = option(20, "dev batches that rank the finalists", within="[1, 1e6]")
    rows_per_batch: int = option(32, "rows of one dev batch", within="[1, 1e6]")
    memory_gib: float = option(
        1.0,
        "GiB of hidden states that scoring holds; what the paths in work leave of it keeps "
        "prefixes for later rounds",
        within="[0, 4096]",
    )
    stacked_prefixes: int = option(
        0,
        "prefixes that take an operator in one call at most; 0 = 1 on a CPU, 8 on a GPU",
        within="[0, 65536]",
    )
    num_results: int = option(10, "architectures written", within="[1, 1e6]")
    num_random: int = option(
        4,
        "architectures drawn uniformly within the limits, written as baselines to retrain",
        within="[0, 1e6]",
    )

    def validate(self) -> Iterator[str]:
        """Yields the problems of this section, as ``field: what is wrong``."""
        for scorer in ("table", "callable"):
            is_given = bool(getattr(self, scorer))
            if is_given != (self.scorer == scorer):
                remedy = (
                    f"search.{scorer} names it" if not is_given else f"set search.scorer {scorer}"
                )
                yield f"{scorer}: search.scorer is {self.scorer!r}; {remedy}"
        if self.callable and not re.fullmatch(r"[\w.]+:\w+", self.callable):
            yield f"callable: must be module:name, got {self.callable!r}"
        if not self.objectives or len(set(self.objectives)) < len(self.objectives):
            yield f"objectives: must name different figures, got {list(self.objectives)}"
        if self.max_parameters and self.min_parameters > self.max_parameters:
            yield (
                f"min_parameters: {self.min_parameters} is above "
                f"max_parameters {self.max_parameters}"
            )
