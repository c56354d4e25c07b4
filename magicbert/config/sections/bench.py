"""The benchmarks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

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


@dataclass(frozen=True, kw_only=True, slots=True)
class MeasureSection:
    """How `bench kernels`, `bench step`, `bench data` and `bench search` measure."""

    device: Literal["auto", "cpu", "cuda"] = option("auto", "auto = the GPU if torch sees one")
    rounds: int = option(0, "turns of every contender; 0 = by device", within="[0, 10000]")
    seconds: float = option(
        480.0, "no further case is started after so long; the next run goes on", within="[0, 1e6]"
    )
    peers: bool = option(True, "also measure the peers")
    seed: int = option(0, "seed of inputs and weights", within="[0, 4294967295]")


@dataclass(frozen=True, kw_only=True, slots=True)
class KernelBenchSection:
    """Cases of `bench kernels`; an empty list = by device."""

    cases: tuple[str, ...] = option((), "parts of names of cases, such as norm; empty = all")
    tokens: tuple[int, ...] = option((), "tokens of a batch", within="[1, 16777216]")
    widths: tuple[int, ...] = option((), "features of a token", within="[8, 65536]")
    dtypes: tuple[str, ...] = option((), "float32, bfloat16, float16")
    flash_layer_norm: str = option(
        "", "flash_attn/ops/triton/layer_norm.py, if that package is not installed"
    )
    tune: bool = option(
        False, "search launch settings on the GPU first and rewrite launch_tables.json"
    )
    aot: bool = option(False, "compile ahead of time for GPUs that need not be there, time nothing")


@dataclass(frozen=True, kw_only=True, slots=True)
class StepBenchSection:
    """Cases of `bench step`; an empty list = by device."""

    cases: tuple[str, ...] = option(
        (), "full (rows without padding), mixed (lengths of half a row on average), supernet"
    )
    models: tuple[str, ...] = option((), "tiny, L4 H256, base, large")
    lengths: tuple[int, ...] = option((), "tokens of a row", within="[8, 65536]")
    tokens: int = option(
        0, "tokens of a step; 0 = 65536 on a GPU, 2048 on a CPU", within="[0, 16777216]"
    )
    precision: Literal["auto", "fp32", "bf16"] = option(
        "auto", "type of the matrix products; auto = bf16 where the device has it in hardware"
    )
    compiled: bool = option(True, "also measure compiled peers; compiling takes a minute or two")


@dataclass(frozen=True, kw_only=True, slots=True)
class DataBenchSection:
    """Cases of `bench data`."""

    cases: tuple[str, ...] = option((), "masking, loader, waiting, tokenizer; empty = all")


@dataclass(frozen=True, kw_only=True, slots=True)
class SearchBenchSection:
    """Cases of `bench search`."""

    cases: tuple[str, ...] = option(
        (), "block, uniform-12, uniform-24, evolution, uniform-12-head; empty = all"
    )
    whole: bool = option(
        False,
        "on a CPU too, time all paths of a case, which takes hours, not those behind one prefix",
    )
