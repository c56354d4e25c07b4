"""From one case to one row of the record: judged first, then timed in turns, then compared."""

from __future__ import annotations

import gc
import math
import os
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import torch

from magicbert.bench.ceilings import Ceiling, ceilings, floor_seconds
from magicbert.bench.instruments import REPLAYS, Instrument, first_line, instruments
from magicbert.bench.ratios import Spread, paired_ratio, spread
from magicbert.bench.registry import OWN, Case, Contender, Floor, Trial
from magicbert.bench.turns import Pace, in_rounds, take_turns

BEYOND_MEASURE = 1e300


def measure(case: Case, device: torch.device, pace: Pace) -> dict[str, Any]:
    """Measures one case; returns the row of the record.

    Contenders that give a wrong answer, or none, are not timed: the row says why.
    """
    start, load = time.perf_counter(), os.getloadavg()[0]
    trial = case.build(device)
    verdicts, failed = judged(trial)
    able = [contender for contender in trial.lineup.contenders if contender.name not in failed]
    tops = ceilings(trial.floor, device)
    everyone = [*able, *(top.contender for top in tops.values())]
    modes: dict[str, Any] = {}
    for instrument in instruments(torch.device("cpu") if case.is_host_work else device):
        if instrument.modes == (REPLAYS,) and not case.is_replayable:
            continue
        modes |= measured_modes(everyone, tops, trial, instrument, pace)
    row = {
        "case": case.name,
        "variant": dict(case.variant),
        "unit": case.unit,
        "units": trial.units,
        "floor": {"bytes": trial.floor.bytes, "flops": trial.floor.flops},
        "verdicts": verdicts,
        "failed": failed,
        "absent": dict(trial.lineup.absent),
        "facts": dict(trial.facts),
        "modes": modes,
    }
    trial.close()
    del trial, able, everyone, tops
    let_go(device)
    return row | {
        "load_average": [round(load, 1), round(os.getloadavg()[0], 1)],
        "seconds": round(time.perf_counter() - start, 1),
    }


def judged(trial: Trial) -> tuple[dict[str, dict[str, float]], dict[str, str]]:
    """Returns each contender's error and what is allowed, and why some are not timed."""
    verdicts, failed = {}, {}
    for contender in trial.lineup.contenders:
        try:
            verdict = trial.judge(contender)
        except Exception as problem:  # a peer's failure is a line of the table
            failed[contender.name] = first_line(problem)
            continue
        # JSON has no NaN and no infinity; either is wrong beyond measure.
        error = float(f"{verdict.error:.4g}") if verdict.error < math.inf else BEYOND_MEASURE
        verdicts[contender.name] = {"error": error, "allowed": verdict.allowed}
        if not verdict.is_right:
            failed[contender.name] = f"wrong: error {error:.3g}, allowed {verdict.allowed:.3g}"
    return verdicts, failed


def measured_modes(
    everyone: Sequence[Contender],
    tops: Mapping[str, Ceiling],
    trial: Trial,
    instrument: Instrument,
    pace: Pace,
) -> dict[str, Any]:
    """Returns by mode the times of everyone, and magicbert's against peers and floor."""
    turns = take_turns(everyone, instrument, pace, trial.num_sets)
    return {
        mode: {
            "microseconds": {
                name: rounded(spread([1e6 * value for value in seconds]))
                for name, seconds in times.items()
            },
            "peer_over_own": peer_ratios(times, set(tops)),
            "percent_of_floor": percent_of_floor(times, tops, trial.floor),
            "rates": {name: top.amount / median_of(times[name]) for name, top in tops.items()},
            "failed": turns.failed.get(mode, {}),
        }
        for mode, times in turns.times.items()
    }


def peer_ratios(times: Mapping[str, Sequence[float]], tops: set[str]) -> dict[str, Any]:
    """Returns how many times magicbert's time each peer takes, by rounds."""
    if OWN not in times:
        return {}
    return {
        name: rounded(paired_ratio(in_rounds(times, name), in_rounds(times, OWN)))
        for name in times
        if name != OWN and name not in tops
    }


def percent_of_floor(
    times: Mapping[str, Sequence[float]], tops: Mapping[str, Ceiling], floor: Floor
) -> dict[str, Any]:
    """Returns, per contender, the share of its time that the work would take at the ceilings.

    Round by round: the ceilings of a round ran beside what is compared with them.
    """
    if not tops:
        return {}
    least = [
        [100 * floor_seconds(floor, {name: top.amount / values[i] for name, top, values in parts})]
        for parts in [[(name, top, times[name]) for name, top in tops.items()]]
        for i in range(len(parts[0][2]))
    ]
    return {
        name: rounded(paired_ratio(least, in_rounds(times, name)))
        for name in times
        if name not in tops
    }


def median_of(values: Sequence[float]) -> float:
    """Returns the median of one contender's rounds."""
    return spread(values).median


def rounded(figure: Spread) -> dict[str, float]:
    """Returns a spread with five digits, as JSON data."""
    return {end: float(f"{value:.5g}") for end, value in asdict(figure).items()}


def let_go(device: torch.device) -> None:
    """Frees what a case has held: tensors, graphs, compiled code."""
    gc.collect()
    if "torch._dynamo" in sys.modules:  # else nothing was compiled, and it takes seconds to import
        torch.compiler.reset()
    if device.type == "cuda":
        torch.cuda.empty_cache()
