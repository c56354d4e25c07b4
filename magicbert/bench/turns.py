"""Contenders take turns: each round every one of them does its work for a moment."""

from __future__ import annotations

import gc
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from magicbert.bench.instruments import Instrument, first_line
from magicbert.bench.registry import AbsentError, Contender

# Seconds of one call by mode, contender and round.
Times: TypeAlias = dict[str, dict[str, list[float]]]


@dataclass(frozen=True, slots=True)
class Pace:
    """How long a measurement lasts.

    Attributes:
        rounds: turns of every contender.
        turn_seconds: a turn repeats its call for about this long.
        max_calls: and at most so often.
    """

    rounds: int
    turn_seconds: float
    max_calls: int = 1000


@dataclass(slots=True)
class Turns:
    """What a measurement gave.

    Attributes:
        times: seconds of one call.
        failed: by mode and contender, why there are none.
    """

    times: Times = field(default_factory=dict)
    failed: dict[str, dict[str, str]] = field(default_factory=dict)


def take_turns(
    contenders: Sequence[Contender], instrument: Instrument, pace: Pace, num_sets: int
) -> Turns:
    """Times the contenders with one instrument.

    The order moves on by one each round, so that nobody always follows the same one; before its
    timed calls a contender makes one that is not timed, which finds caches full of another's data.
    """
    turns = Turns()
    calls: dict[str, Callable[[int], object]] = {}
    for contender in contenders:
        try:
            calls[contender.name] = instrument.ready(contender, num_sets)
        except AbsentError as error:
            turns.failed.setdefault(instrument.modes[0], {})[contender.name] = str(error)
        except Exception as error:  # a peer's failure is a line of the table
            turns.failed.setdefault(instrument.modes[0], {})[contender.name] = first_line(error)
    num_calls = {name: calibrated(call, instrument, pace) for name, call in calls.items()}
    turns.times = {mode: {name: [] for name in calls} for mode in instrument.modes}
    gc.collect()
    gc.freeze()
    names = list(calls)
    for number in range(pace.rounds):
        first = number % max(len(names), 1)
        for name in [*names[first:], *names[:first]]:
            calls[name](num_sets - 1)
            for mode, seconds in instrument.seconds(calls[name], num_calls[name]).items():
                turns.times[mode][name].append(seconds)
    gc.unfreeze()
    return turns


def calibrated(call: Callable[[int], object], instrument: Instrument, pace: Pace) -> int:
    """Returns how many calls fill a turn."""
    seconds = instrument.seconds(call, 1)[instrument.modes[0]]
    if seconds <= 0:
        return pace.max_calls
    return max(1, min(math.ceil(pace.turn_seconds / seconds), pace.max_calls))


def in_rounds(times: Mapping[str, Sequence[float]], name: str) -> list[list[float]]:
    """Returns the times of one contender as `paired_ratio` takes them: a step per round."""
    return [[seconds] for seconds in times[name]]
