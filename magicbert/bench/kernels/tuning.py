"""``--tune``: which launch settings are fastest on this GPU, written into the launch table.

Every combination of a kernel's ``choices`` is timed by graph replays, at all token counts of a
width: one setting serves them all, so the one with the least product of times is taken. What stands
in the table stays unless another is faster by more than the noise.
"""

from __future__ import annotations

import itertools
import logging
import math
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TypeAlias

import torch
from magicbert_kernels import launch_table
from magicbert_kernels.launch_table import LaunchRow, LaunchTables, trying

from magicbert.bench.instruments import GraphReplays, first_line
from magicbert.bench.kernels.family import Family, Place
from magicbert.bench.kernels.operation import Direction, operation_trial
from magicbert.bench.measuring import let_go
from magicbert.bench.registry import OWN, Trial
from magicbert.errors import UserError
from magicbert.records import write_text_atomically

LOGGER = logging.getLogger("magicbert")
# A setting must be faster by this share to take the place of one that is there.
LEAST_GAIN = 0.02
ROUNDS, CALLS = 5, 50

Settings: TypeAlias = tuple[tuple[str, int], ...]
# Seconds of one call of a trial with some settings; `None` = they do not work.
Stopwatch: TypeAlias = Callable[[str, Settings], float | None]


@dataclass(frozen=True, slots=True)
class Found:
    """The settings of one kernel for one width and type.

    Attributes:
        kernel: its name in the table.
        width: number of features.
        dtype: element type, such as ``bfloat16``.
        settings: the fastest.
    """

    kernel: str
    width: int
    dtype: str
    settings: Settings


def tune(families: Sequence[Family], places: Sequence[Place], seed: int) -> list[Found]:
    """Searches the settings of every kernel and rewrites the table.

    Args:
        families: operations whose kernels are tuned.
        places: sizes, all on one GPU.
        seed: of the inputs.

    Raises:
        UserError: this is no GPU, or the table cannot be written.
    """
    device = places[0].device
    if device.type != "cuda":
        raise UserError("kernels.tune: settings are searched on a GPU, and torch sees none")
    tables = launch_table.shipped_tables()
    name = launch_table.device_name(device)
    found = []
    with torch.cuda.stream(torch.cuda.Stream(device)):  # type: ignore[no-untyped-call]
        for family, direction, kernel in tunable(families, tables):
            for group in by_width(places):
                watches = [stopwatch(family, direction, place, seed) for place in group]
                found.append(search(kernel, group[0], tables, name, watches))
                let_go(device)
    write_table(with_found(tables, name, found))
    return found


def tunable(
    families: Sequence[Family], tables: LaunchTables
) -> Iterator[tuple[Family, Direction, str]]:
    """Yields every kernel that has choices, with what measures it."""
    for family in families:
        for direction, kernels in family.kernels.items():
            for kernel in kernels:
                if kernel in tables.choices:
                    yield family, direction, kernel


def by_width(places: Sequence[Place]) -> list[list[Place]]:
    """Returns the places in groups of one width and type, which share settings."""
    groups: dict[tuple[int, torch.dtype], list[Place]] = {}
    for place in places:
        groups.setdefault((place.size.width, place.size.dtype), []).append(place)
    return list(groups.values())


def search(
    kernel: str, place: Place, tables: LaunchTables, device_name: str, watches: Sequence[Stopwatch]
) -> Found:
    """Returns the settings that are fastest over all stopwatches.

    Args:
        kernel: its name in the table.
        place: of the width and type.
        tables: what is tried and what is there.
        device_name: as in the table.
        watches: one per token count.
    """
    width, dtype = place.size.width, str(place.size.dtype).removeprefix("torch.")
    present = tuple(sorted(tables.find(kernel, width, dtype, device_name).items()))
    scores = {
        settings: score
        for settings in {present: None, **dict.fromkeys(combinations(tables.choices[kernel]))}
        if (score := score_of(kernel, settings, watches)) is not None
    }
    chosen = fastest(scores, present)
    LOGGER.info("%s, width %d, %s: %s", kernel, width, dtype, dict(chosen))
    return Found(kernel, width, dtype, chosen)


def combinations(choices: Mapping[str, Sequence[int]]) -> Iterator[Settings]:
    """Yields every combination of the values of each setting."""
    names = sorted(choices)
    for values in itertools.product(*(choices[name] for name in names)):
        yield tuple(zip(names, values, strict=True))


def score_of(kernel: str, settings: Settings, watches: Sequence[Stopwatch]) -> float | None:
    """Returns the mean logarithm of the times; ``None`` if the settings fail anywhere."""
    times = [watch(kernel, settings) for watch in watches]
    known = [time for time in times if time is not None]
    if len(known) < len(watches):
        return None
    return statistics.fmean(map(math.log, known))


def fastest(scores: Mapping[Settings, float], present: Settings) -> Settings:
    """Returns the best settings; those present stay unless the best gain enough."""
    best = min(scores, key=lambda settings: scores[settings], default=present)
    if present in scores and scores[best] > scores[present] + math.log(1 - LEAST_GAIN):
        return present
    return best


def stopwatch(family: Family, direction: Direction, place: Place, seed: int) -> Stopwatch:
    """Returns what times magicbert's own contender with given settings.

    A setting whose answer is wrong does not work either.
    """
    operation = family.operation(place)
    rivals = {OWN: family.rivals(place)[OWN]}

    def seconds(kernel: str, settings: Settings) -> float | None:
        with trying(kernel, dict(settings)):
            try:
                trial = operation_trial(operation, direction, rivals, place.device, seed)
                return own_seconds(trial)
            except Exception as error:  # too many registers, too much shared memory
                LOGGER.info("%s with %s: %s", kernel, dict(settings), first_line(error))
                return None

    return seconds


def own_seconds(trial: Trial) -> float | None:
    """Returns the median time of the only contender; ``None`` if its answer is wrong."""
    (own,) = trial.lineup.contenders
    if not trial.judge(own).is_right:
        return None
    replays = GraphReplays()
    call = replays.ready(own, trial.num_sets)
    return statistics.median(
        seconds for _ in range(ROUNDS) for seconds in replays.seconds(call, CALLS).values()
    )


def with_found(tables: LaunchTables, device_name: str, found: Sequence[Found]) -> LaunchTables:
    """Returns the tables with new rows for a device; its other kernels keep theirs."""
    kernels = dict(tables.devices.get(device_name, {}))
    for kernel in {item.kernel: None for item in found}:
        mine = sorted(
            (item for item in found if item.kernel == kernel),
            key=lambda item: (item.dtype, item.width),
        )
        kernels[kernel] = tuple(
            LaunchRow(MappingProxyType(dict(item.settings)), item.width, item.dtype)
            for item in mine
        )
    return LaunchTables(tables.choices, {**tables.devices, device_name: kernels})


def write_table(tables: LaunchTables) -> None:
    """Writes the file in the package.

    Raises:
        UserError: it may not be written.
    """
    try:
        write_text_atomically(launch_table.FILE, launch_table.write_tables(tables))
    except OSError as error:
        raise UserError(
            f"kernels.tune: {launch_table.FILE.name} cannot be written: {error.strerror}; "
            "run it from a checkout that is yours"
        ) from error
    launch_table.read_again()
