"""What the units of a study cost, before any of them is begun."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from magicbert.config.sections import RankingSection
from magicbert.space import Architecture, SearchSpace
from magicbert.study.methods import supernet_forwards
from magicbert.study.rows import Row
from magicbert.study.tenant import Tenant
from magicbert.study.trials import NUM_CURVE_PATHS
from magicbert.study.units import AloneUnit, DownstreamUnit, SupernetUnit, Unit
from magicbert.training.small_training import FORWARDS_PER_STEP


@dataclass(frozen=True)
class UnitCosts:
    """FLOPs of units, scores included; fine-tuning is not counted, its rows differ in length.

    Attributes:
        tenant: knows what a forward costs.
        setting: of the study.
        space: of the supernets.
        table: architectures that supernets score.
    """

    tenant: Tenant
    setting: RankingSection
    space: SearchSpace
    table: tuple[Architecture, ...]

    def flops(self, unit: Unit) -> float:
        """Returns the FLOPs of a unit; those of a supernet are an expectation over paths."""
        setting = self.setting
        dev_rows = setting.num_dev_batches * setting.rows_per_dev_batch
        match unit:
            case AloneUnit():
                rows = FORWARDS_PER_STEP * unit.num_steps * setting.rows_per_step
                scored = dev_rows * (setting.num_curve_points + 1)
                return self.tenant.forward_flops(unit.architecture) * (rows + scored)
            case SupernetUnit():
                forwards = supernet_forwards(unit.entry, unit.num_steps, setting, self.space)
                scored = dev_rows * (NUM_CURVE_PATHS * setting.num_curve_points + len(self.table))
                return self.mean_forward() * (forwards + scored)
            case DownstreamUnit():
                return 0.0

    def mean_forward(self) -> float:
        """Returns the FLOPs of one row's forward, mean over all paths of the space.

        FLOPs are a sum over layers, so the mean over paths is that of paths which take the n-th
        candidate of every layer, each as often as its layer has it.
        """
        most = max(len(names) for names in self.space.layers)
        paths = [
            Architecture(tuple(names[turn % len(names)] for names in self.space.layers))
            for turn in range(most)
        ]
        return sum(map(self.tenant.forward_flops, paths)) / most


@dataclass(frozen=True)
class PlanLine:
    """Units of one kind and name.

    Attributes:
        name: such as ``alone, short`` or ``magic-at, k=6``.
        num_units: of them in all.
        num_done: that have a row.
        num_steps: optimizer steps of each; 0 = not counted in steps.
        flops: of all together.
        flops_left: of those without a row.
    """

    name: str
    num_units: int
    num_done: int
    num_steps: int
    flops: float
    flops_left: float


def plan_lines(units: Sequence[Unit], done: Mapping[str, Row], costs: UnitCosts) -> list[PlanLine]:
    """Returns what is to be done, one line per kind and name, in the order of the units."""
    groups: dict[tuple[str, int], list[Unit]] = {}
    for unit in units:
        groups.setdefault(name_of(unit), []).append(unit)
    lines = []
    for (name, num_steps), members in groups.items():
        flops = [costs.flops(unit) for unit in members]
        left = sum(f for f, unit in zip(flops, members, strict=True) if unit.key not in done)
        num_done = sum(unit.key in done for unit in members)
        lines.append(PlanLine(name, len(members), num_done, num_steps, sum(flops), left))
    return lines


def name_of(unit: Unit) -> tuple[str, int]:
    """Returns what units of one line have in common: name and steps."""
    match unit:
        case AloneUnit():
            return f"alone, {unit.budget}", unit.num_steps
        case SupernetUnit():
            return f"supernet {unit.entry.method}, {unit.entry.settings}", unit.num_steps
        case DownstreamUnit():
            return f"fine-tuning, {unit.task}", 0


def measured_speed(
    units: Sequence[Unit], done: Mapping[str, Row], costs: UnitCosts
) -> float | None:
    """Returns the FLOPs per second of one worker in the units that are done; ``None`` = none is."""
    known = [(costs.flops(unit), done[unit.key]["seconds"]) for unit in units if unit.key in done]
    flops = sum(f for f, _ in known if f)
    seconds = sum(float(s) for f, s in known if f)
    return flops / seconds if seconds else None
