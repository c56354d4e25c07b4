"""How latencies are measured."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from magicbert.config.fields import option


@dataclass(frozen=True, kw_only=True, slots=True)
class LatencySection:
    """What a search measures on this machine; a limit on latency measures it anyway."""

    measure: bool = option(False, "measure latencies also where no limit asks for them")
    file: str = option(
        "",
        "a latency.json that was measured before, of this machine and these settings; empty = the "
        "search's own, measured when it is not there",
    )
    rows: int = option(1, "rows of the batch", within="[1, 1e6]")
    length: int = option(
        0, "tokens of a row; 0 = as many as the prepared rows have", within="[0, 1e6]"
    )
    dtype: Literal["fp32", "bf16", "fp16"] = option("fp32", "number format of the model")
    device: Literal["auto", "cpu", "cuda"] = option("auto", "'auto' = a GPU if there is one")
    num_threads: int = option(0, "CPU threads; 0 = all that PyTorch takes", within="[0, 4096]")
    num_checks: int = option(
        8, "random architectures whose whole models the sums are checked against", within="[1, 1e4]"
    )
    seconds: float = option(
        0.5, "least time spent on each part and on each whole model", within="[0.001, 3600]"
    )
