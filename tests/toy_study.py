"""A small study of the toy tenant, for processes that must find it by name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from toy_tenant import OPERATORS, ToyObjective, ToySource, ToyStack, ToySupernet

from magicbert.config.sections import OptimizerSection, RankingSection, StudiedSupernetSection
from magicbert.interference.probe import InterferenceProbe
from magicbert.space import Architecture, SearchSpace
from magicbert.space.cost import Cost
from magicbert.study.architectures import table_architectures
from magicbert.study.pieces import Stop
from magicbert.study.rows import Row
from magicbert.study.trials import Trials
from magicbert.study.units import AloneUnit, Unit, units_of
from magicbert.supernet.stacked_models import StackedModels
from magicbert.supernet.supernet import Supernet

SPACE = SearchSpace.uniform(2, OPERATORS)
SETTING = RankingSection(
    table="periodic",
    period=1,
    num_seeds=1,
    short_steps=6,
    supernet_steps=12,
    supernets=(
        StudiedSupernetSection(num_seeds=1),
        StudiedSupernetSection(method="strict-fair", num_seeds=1),
        StudiedSupernetSection(
            method="magic-at", num_seeds=1, num_blocks=2, anchor_every=3, anchor_batches=1
        ),
    ),
    optimizer=OptimizerSection(learning_rate=5e-3, warmup_steps=2),
    rows_per_step=8,
    rows_per_micro_batch=8,
    num_dev_batches=2,
    num_curve_points=3,
)
TABLE = table_architectures(SETTING, SPACE)


class ToyStudyTenant:
    objective = ToyObjective()
    probe = InterferenceProbe(objective)

    def build(self, space: SearchSpace, seed: int) -> Supernet:
        torch.manual_seed(seed)
        return ToySupernet(space)

    def stack(self, supernets: Sequence[Supernet]) -> StackedModels:
        return ToyStack(supernets)

    def source(self, seed: int) -> ToySource:
        return ToySource(8, seed=seed)

    def dev_batches(self) -> list[Any]:
        return ToySource(16, seed=99).dev_batches(2)

    def cost(self, architecture: Architecture) -> Cost:
        sizes = {"small": 1, "middle": 2, "large": 3}
        return Cost(100, float(sum(sizes[name] for name in architecture)))

    def forward_flops(self, architecture: Architecture) -> float:
        return self.cost(architecture).flops + 1.0

    def keep(self, supernet: Supernet, unit: AloneUnit, folder: Path) -> None:
        folder.mkdir(parents=True)
        torch.save(supernet.state_dict(), folder / "weights")

    def finetune(self, folder: Path, task: str, seed: int) -> tuple[str, float]:
        weights = torch.load(folder / "weights", weights_only=True)
        return "sum", float(sum(value.double().sum() for value in weights.values()))


def open_toys(worker: int, setting: RankingSection, folder: Path) -> Trials:
    return Trials(ToyStudyTenant(), setting, SPACE, TABLE, folder)


@dataclass(frozen=True)
class Failing:
    """Fails at one unit, with a bug."""

    trials: Trials
    key: str

    def __call__(self, unit: Unit, stop: Stop) -> Row | None:
        if unit.key == self.key:
            raise ZeroDivisionError("a bug")
        return self.trials(unit, stop)


def open_failing(worker: int, setting: RankingSection, folder: Path, key: str) -> Failing:
    return Failing(open_toys(worker, setting, folder), key)


def open_broken(worker: int) -> Trials:
    raise OSError("the data went away")


def toy_units(**changes: Any) -> list[Unit]:
    return units_of(replace(SETTING, **changes), SPACE, TABLE)


def never() -> bool:
    return False


def after(number: int) -> Stop:
    """Says stop from its n-th question on."""
    asked = 0

    def stop() -> bool:
        nonlocal asked
        asked += 1
        return asked > number

    return stop
