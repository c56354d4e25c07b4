"""Judges magicbert's own Triton contenders of every case, in Triton's interpreter; prints them."""

from __future__ import annotations

import torch

from magicbert.bench.kernels.family import Place
from magicbert.bench.kernels.operation import operation_trial
from magicbert.bench.kernels.sizes import Size
from magicbert.bench.kernels.suite import FAMILIES
from magicbert.bench.registry import OWN
from magicbert.config.sections import KernelBenchSection

SIZE = Size(tokens=24, width=32, dtype=torch.float32)


def main() -> None:
    place = Place(SIZE, torch.device("cpu"), "triton", KernelBenchSection())
    for family in FAMILIES:
        rivals = {OWN: family.rivals(place)[OWN]}
        for direction in family.directions:
            trial = operation_trial(family.operation(place), direction, rivals, place.device, 0)
            (own,) = trial.lineup.contenders
            verdict = trial.judge(own)
            own.call(0)
            own.call(0)
            print(verdict.is_right, f"{family.name}, {direction}: {verdict.error:.3g}")


if __name__ == "__main__":
    main()
