"""Runs a target: every case that the record lacks, the most valuable first, within a time."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from magicbert.bench.measuring import measure
from magicbert.bench.registry import OWN, Case
from magicbert.bench.suite_record import add_row, device_slug, missing, open_record
from magicbert.bench.turns import Pace
from magicbert.config.roots import BenchConfig
from magicbert.config.sections import MeasureSection
from magicbert.errors import UserError
from magicbert.trail import stage_folder

LOGGER = logging.getLogger("magicbert")
# On the CPU a turn must outlast the steps of its clock; a GPU has a finer one.
TURN_SECONDS = {"cpu": 0.05, "cuda": 0.01}
ROUNDS = {"cpu": 9, "cuda": 15}


@dataclass(frozen=True, slots=True)
class Suite:
    """A target that is ready to be measured.

    Attributes:
        target: its name.
        cases: in the order of their worth.
        device: where.
        pace: how long each contender is measured, and when no further case is started.
        setting: what else decides how a case is measured.
    """

    target: str
    cases: Sequence[Case]
    device: torch.device
    pace: MeasureSection
    setting: Mapping[str, Any]


def run_suite(suite: Suite, config: BenchConfig) -> dict[str, Any]:
    """Measures what the record lacks and returns the record.

    Raises:
        UserError: a kernel of magicbert was wrong or failed: the record holds where and how.
    """
    file = record_file(suite, config)
    record = open_suite_record(suite, config)
    begin = time.monotonic()
    left = missing(record, suite.cases)
    with own_stream(suite.device):
        for number, case in enumerate(left):
            if number and time.monotonic() - begin > suite.pace.seconds:
                LOGGER.warning(
                    "%d cases are left after %.0f s: give the same command again to go on",
                    len(left) - number, suite.pace.seconds,
                )  # fmt: skip
                break
            row = measure(case, suite.device, pace_on(suite.pace, suite.device))
            add_row(file, record, row)
            report(row)
    refuse_wrong(record)
    return record


def open_suite_record(suite: Suite, config: BenchConfig) -> dict[str, Any]:
    """Returns the record so far."""
    setting = {**suite.setting, "rounds": pace_on(suite.pace, suite.device).rounds}
    return open_record(record_file(suite, config), suite.target, suite.device, setting)


def record_file(suite: Suite, config: BenchConfig) -> Path:
    """Returns the file in the stage's folder that grows row by row."""
    name = f"{suite.target}-{device_slug(suite.device)}.json"
    return stage_folder(config.run, "bench") / name


def pace_on(pace: MeasureSection, device: torch.device) -> Pace:
    """Returns the pace with the device's defaults filled in."""
    return Pace(pace.rounds or ROUNDS[device.type], TURN_SECONDS[device.type])


def chosen_device(name: str) -> torch.device:
    """Returns the device for ``auto``, ``cpu`` or ``cuda``, and makes the CPU ready.

    Raises:
        UserError: there is no such device.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError("measure.device: cuda was asked for, but torch sees no CUDA device")
    if name == "cpu" or not torch.cuda.is_available():
        torch.set_num_threads(1)
        return torch.device("cpu")
    return torch.device("cuda", torch.cuda.current_device())


def own_stream(device: torch.device) -> Any:
    """Returns a context with a stream of its own: graphs are not captured on the default one."""
    return torch.cuda.stream(torch.cuda.Stream(device) if device.type == "cuda" else None)  # type: ignore[no-untyped-call]


def report(row: Mapping[str, Any]) -> None:
    """Logs one row."""
    sizes = ", ".join(f"{name} {value}" for name, value in row["variant"].items())
    mode, figures = next(iter(row["modes"].items()))
    ratios = figures["peer_over_own"].items()
    against = ", ".join(f"{name} {ratio['median']:.2f}x" for name, ratio in ratios)
    own = figures["microseconds"].get(OWN)
    time_text = f"{own['median']:.1f} us" if own else row["failed"].get(OWN, "not measured")
    LOGGER.info("%s (%s): %s by %s; %s", row["case"], sizes, time_text, mode, against)


def refuse_wrong(record: Mapping[str, Any]) -> None:
    """Raises `UserError` if something of magicbert's own gave a wrong answer or none."""
    wrong = [
        f"{row['case']} {row['variant']}: {row['failed'][OWN]}"
        for row in record["rows"]
        if OWN in row["failed"]
    ]
    if wrong:
        raise UserError("magicbert's own contender failed:\n" + "\n".join(wrong))
