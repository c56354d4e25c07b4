"""The benchmarks."""

from __future__ import annotations

from dataclasses import dataclass

from magicbert.config.fields import option


@dataclass(frozen=True, kw_only=True, slots=True)
class EngineBenchSection:
    """Setting of `bench engine`: a light chain of layers, so that nothing hides the step's cost."""

    stages: tuple[int, ...] = option((0, 1, 2, 3), "ZeRO stages to measure", within="[0, 3]")
    ranks: tuple[int, ...] = option((1, 2), "numbers of ranks to measure", within="[1, 4096]")
    candidates: tuple[int, ...] = option(
        (4, 26), "operators per layer to measure", within="[1, 1024]"
    )
    peers: bool = option(True, "also measure stock DeepSpeed and torch on the supernet")
    num_layers: int = option(24, "layers of the chain", within="[1, 1024]")
    hidden_size: int = option(256, "width of every layer", within="[1, 65536]")
    rows: int = option(4, "rows of one rank in one step", within="[1, 65536]")
    length: int = option(64, "tokens per row", within="[1, 65536]")
    rounds: int = option(9, "turns of every contender", within="[1, 10000]")
    steps: int = option(3, "timed steps of one turn", within="[1, 10000]")
    peer_rounds: int = option(3, "turns where stock DeepSpeed or torch play", within="[1, 10000]")
    seed: int = option(0, "seed of weights, tokens and paths", within="[0, 4294967295]")
