"""The analyses: the sampler's walk and interference between paths."""

from __future__ import annotations

from dataclasses import dataclass

from magicbert.config.fields import option


@dataclass(frozen=True, kw_only=True, slots=True)
class SamplerAnalysisSection:
    """Setting of `analyze sampler`."""

    num_walkers: int = option(
        400, "walkers of the real sampler that are held against theory", within="[2, 1e6]"
    )
    num_steps: int = option(120, "steps of the walkers and of the plot", within="[1, 100000]")
    seed: int = option(0, "seed of the first walker", within="[0, 4294967295]")


@dataclass(frozen=True, kw_only=True, slots=True)
class InterferenceSection:
    """Setting of `analyze interference`; layers count from 1, as in the paper."""

    shared_layer: int = option(
        1, "layer of the shared operator whose gradients are compared", within="[1, 1000]"
    )
    differing_layer: int = option(
        2, "layer in which children differ in the matrices", within="[1, 1000]"
    )
    operators: tuple[str, ...] = option(
        (), "shared operators to examine; empty = every candidate of the shared layer"
    )
    most_layers: int = option(
        0, "largest number of differing layers of the curve; 0 = all others", within="[0, 1000]"
    )
    num_contexts: int = option(
        16, "random contexts, which are the samples of every figure", within="[2, 1e6]"
    )
    num_batches: int = option(2, "fixed dev batches the contexts share", within="[1, 1e6]")
    rows_per_batch: int = option(16, "rows of a batch", within="[1, 1e6]")
    seed: int = option(0, "seed of contexts and offsets", within="[0, 4294967295]")
