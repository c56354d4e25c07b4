"""Trials of `toy_rank` and what is read from them."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from forked_ranks import Trial, num_firings, rank_server
from safetensors.torch import load_file

from magicbert.trail import read_metrics

# Far above what a trial takes, also on a machine that is busy with other things.
PATIENCE = 150.0
Config = dict[str, dict[str, Any]]


def start(
    folder: Path,
    *prepare: str,
    config: Config | None = None,
    faults: str = "",
    num_ranks: int = 2,
    world: int = 0,
) -> Trial:
    """Starts a run of the toy.

    Args:
        folder: of the trial.
        *prepare: what is changed in every rank, as ``function=argument`` of `toy_faults`.
        config: what differs from the toy's configuration.
        faults: rules for the product's fault points.
        num_ranks: ranks that are started.
        world: ranks that there should be; 0 = as many.
    """
    environment = {"WORLD_SIZE": str(world), "LOCAL_SIZE": str(world)} if world else None
    settings = {"config": config or {}, "prepare": [f"toy_faults:{text}" for text in prepare]}
    return rank_server().start(
        "toy_rank:run", num_ranks, folder, settings, faults=faults, environment=environment
    )


def run(folder: Path, *prepare: str, **arguments: Any) -> tuple[list[int], Trial]:
    """Runs the toy to its end; ranks that do not end are killed, which shows in their codes."""
    trial = start(folder, *prepare, **arguments)
    return finish(trial), trial


def finish(trial: Trial, patience: float = PATIENCE) -> list[int]:
    """Returns the exit codes; whatever has not ended in time is killed."""
    try:
        return trial.wait(patience)
    except TimeoutError:
        return [0 if code is None else code for code in trial.wait(20)]


def seconds_to_end(trial: Trial, patience: float = PATIENCE) -> tuple[float, list[int]]:
    """Returns the seconds from the first firing of a fault to the end of the last rank."""
    deadline = time.monotonic() + PATIENCE
    while not num_firings(trial.folder) and time.monotonic() < deadline:
        time.sleep(0.02)
    fired = time.monotonic()
    codes = finish(trial, patience)
    return time.monotonic() - fired, codes


def steps_made(trial: Trial) -> int:
    """Returns the last step in the log of a trial that logs every step."""
    rows = read_metrics(trial.folder / "stage")
    return max((row["step"] for row in rows if row["kind"] == "train"), default=0)


def wait_for_step(trial: Trial, step: int) -> None:
    """Waits until the log has a step."""
    deadline = time.monotonic() + PATIENCE
    while steps_made(trial) < step and time.monotonic() < deadline and None in trial.codes():
        time.sleep(0.02)


def wait_for_fault(trial: Trial) -> None:
    """Waits until a fault has fired."""
    deadline = time.monotonic() + PATIENCE
    while not num_firings(trial.folder) and time.monotonic() < deadline:
        time.sleep(0.02)


def send(trial: Trial, ranks: Iterable[int], number: int = signal.SIGTERM) -> None:
    """Sends a signal to some ranks."""
    for rank in ranks:
        with suppress(ProcessLookupError):
            os.kill(trial.pids[rank], number)


def endings(trial: Trial) -> list[str]:
    """Returns the line that each rank ends with: why, after how many steps, digest of its
    weights, whether they are finite."""
    logs = [trial.log(rank).splitlines() for rank in range(len(trial.pids))]
    ends = [[line for line in log if line.startswith("END ")] for log in logs]
    return [lines[-1] for lines in ends if lines]


def saved_numbers_are_finite(trial: Trial) -> bool:
    """Whether all tensors of all checkpoints are finite."""
    files = (trial.folder / "stage" / "checkpoints").glob("step-*/*.safetensors")
    tensors = [tensor for file in files for tensor in load_file(file).values()]
    floats = [tensor for tensor in tensors if tensor.is_floating_point()]
    return all(bool(torch.isfinite(tensor).all()) for tensor in floats)


def firings(trials: Iterable[Trial]) -> int:
    """Returns how many trials saw their fault fire."""
    return sum(num_firings(trial.folder) > 0 for trial in trials)
