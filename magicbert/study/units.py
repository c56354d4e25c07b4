"""The units of work of a ranking study: each is done once and leaves one row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, cast

from magicbert.config.sections import RankingSection, StudiedSupernetSection
from magicbert.records import digest_of
from magicbert.space import Architecture, SearchSpace
from magicbert.study.architectures import chosen
from magicbert.study.methods import alignment_of, completed, options_of, supernet_steps

Budget = Literal["short", "long"]


@dataclass(frozen=True, slots=True)
class AloneUnit:
    """One architecture trained alone.

    Attributes:
        architecture: what is trained.
        seed: of weights, order and masks.
        budget: name of the budget.
        num_steps: its optimizer steps.
        is_kept: whether the trained model is needed for fine-tuning.
    """

    architecture: Architecture
    seed: int
    budget: Budget
    num_steps: int
    is_kept: bool = False

    @property
    def key(self) -> str:
        """What this unit and no other is called."""
        return f"alone/{self.architecture}/{self.budget}/steps{self.num_steps}/seed{self.seed}"


@dataclass(frozen=True, slots=True)
class SupernetUnit:
    """One supernet trained with one method and seed.

    Attributes:
        entry: method and settings.
        seed: of weights, order, masks and paths.
        num_steps: optimizer steps.
    """

    entry: StudiedSupernetSection
    seed: int
    num_steps: int

    @property
    def key(self) -> str:
        """What this unit and no other is called: changed settings are another unit."""
        name = f"{self.entry.method}/{self.entry.settings}/{options_of(self.entry)}"
        return f"supernet/{name}/steps{self.num_steps}/seed{self.seed}"


@dataclass(frozen=True, slots=True)
class DownstreamUnit:
    """One model that was trained alone, fine-tuned on one task.

    Attributes:
        start: how the model was trained.
        task: name of the task.
        recipe: digest of how it is fine-tuned.
    """

    start: AloneUnit
    task: str
    recipe: str

    @property
    def key(self) -> str:
        """What this unit and no other is called."""
        return f"downstream/{self.task}/{self.recipe}/{self.start.key.partition('/')[2]}"


Unit: TypeAlias = AloneUnit | SupernetUnit | DownstreamUnit


@dataclass(frozen=True, slots=True)
class Stack:
    """Several trainings whose steps are made together.

    Attributes:
        units: architectures that are trained alone, or supernets; of one number of steps, at least
            two.
    """

    units: tuple[AloneUnit, ...] | tuple[SupernetUnit, ...]

    @property
    def key(self) -> str:
        """What the stack is called in messages; rows have the keys of their units."""
        return f"{self.units[0].key} and {len(self.units) - 1} beside it"


# What a worker takes at once.
Job: TypeAlias = Unit | Stack


def jobs_of(units: Sequence[Unit], models_at_once: int) -> list[Job]:
    """Returns units as they are taken: what is trained in stacks of one kind and number of steps.

    Supernets with alignment have stacks of their own: they run their anchors too.

    A stack stands where its first unit stood. The same units make the same stacks.

    Args:
        units: in the order in which they are begun.
        models_at_once: units of a stack; the last of its kind may have fewer.
    """
    stacks: dict[tuple[type[Unit], int, bool], list[Unit]] = {}
    places: list[list[Unit]] = []
    for unit in units:
        if isinstance(unit, DownstreamUnit):
            places.append([unit])
            continue
        is_aligned = isinstance(unit, SupernetUnit) and alignment_of(unit.entry).enabled
        kind = (type(unit), unit.num_steps, is_aligned)
        if len(stacks.get(kind, ())) % models_at_once == 0:
            stacks[kind] = []
            places.append(stacks[kind])
        stacks[kind].append(unit)
    return [job_of(place) for place in places]


def job_of(units: Sequence[Unit]) -> Job:
    """Returns some units of one kind as one job; a single one is no stack."""
    return units[0] if len(units) == 1 else Stack(cast(tuple[AloneUnit, ...], tuple(units)))


def units_of(
    setting: RankingSection, space: SearchSpace, table: tuple[Architecture, ...]
) -> list[Unit]:
    """Returns all units in the order in which they are begun.

    Models and supernets come mixed, each in even steps, and models in a random order with all
    seeds of one at once: a study that is stopped early has every method, on a table whose
    architectures are a fair sample. A model is trained before it is fine-tuned.

    Args:
        setting: of the study.
        space: of the supernets.
        table: architectures that are trained alone.
    """
    everything = chosen(table, len(table), setting.table_seed)
    short = alone_units(setting, table, everything, "short", setting.short_steps)
    long: list[AloneUnit] = []
    if setting.long_steps:
        some = chosen(table, setting.num_long, setting.table_seed)
        long = alone_units(setting, table, some, "long", setting.long_steps)
    return [
        *mixed(short, supernet_units(setting, space)),
        *long,
        *downstream_units(setting, [*short, *long]),
    ]


def alone_units(
    setting: RankingSection,
    table: tuple[Architecture, ...],
    architectures: Sequence[Architecture],
    budget: Budget,
    num_steps: int,
) -> list[AloneUnit]:
    """Returns the units of one budget, architecture by architecture."""
    downstream = setting.downstream
    is_tuned = bool(downstream.tasks) and downstream.budget == budget
    number = downstream.num_architectures if is_tuned else 0
    kept = set(chosen(table, number, setting.table_seed))
    return [
        AloneUnit(path, seed, budget, num_steps, path in kept and seed < downstream.num_seeds)
        for path in architectures
        for seed in range(setting.num_seeds)
    ]


def mixed(models: Sequence[Unit], supernets: Sequence[Unit]) -> list[Unit]:
    """Returns both lists as one, in which every prefix has about the same share of each."""
    whole = max(len(models), 1), max(len(supernets), 1)
    places = [((number + 1) / whole[0], 0, unit) for number, unit in enumerate(models)]
    places += [((number + 1) / whole[1], 1, unit) for number, unit in enumerate(supernets)]
    return [unit for _, _, unit in sorted(places, key=lambda place: place[:2])]


def supernet_units(setting: RankingSection, space: SearchSpace) -> list[SupernetUnit]:
    """Returns the first seed of every supernet, then the second, ..."""
    most = max((entry.num_seeds for entry in setting.supernets), default=0)
    return [
        SupernetUnit(completed(entry, setting), seed, supernet_steps(entry, setting, space))
        for seed in range(most)
        for entry in setting.supernets
        if seed < entry.num_seeds
    ]


def downstream_units(setting: RankingSection, alone: Sequence[AloneUnit]) -> list[DownstreamUnit]:
    """Returns the fine-tunings of the models that are kept for them."""
    downstream = setting.downstream
    numbers = (
        downstream.learning_rate, downstream.num_epochs, downstream.batch_size,
        downstream.max_length, downstream.max_train_rows,
    )  # fmt: skip
    recipe = digest_of(numbers)[:8]
    return [
        DownstreamUnit(unit, task, recipe)
        for unit in alone
        if unit.is_kept
        for task in downstream.tasks
    ]
