"""Training runs that are killed at random instants and started again until they are done."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from forked_ranks import Trial, num_firings, rank_server
from saving_trials import verified_steps
from stage_runs import steps_of

NUM_RANKS, NUM_STEPS, SAVE_EVERY = 2, 60, 2
TRAINING = {
    "num_steps": NUM_STEPS, "checkpoint_every": SAVE_EVERY, "evaluate_every": 20,
    "num_eval_batches": 1,
}  # fmt: skip
MOST_SECONDS = 120
EARLY_SECONDS = 0.1


@dataclass
class Killings:
    """What a series of kills has led to.

    Attributes:
        num_killed: ranks were really at work when they were killed.
        lost: steps that a start went back beyond the newest checkpoint that verified.
        skipped: checkpoints that a start found damaged.
        progress: newest verified step after each round.
        runs: runs that were finished.
        differing: first step whose log differs from the uninterrupted run's; '' = none.
    """

    num_killed: int = 0
    lost: int = 0
    skipped: int = 0
    progress: list[int] = field(default_factory=list)
    runs: int = 0
    differing: str = ""


class KilledRun:
    """One run on two ranks, started as often as it takes.

    Args:
        folder: of the run and of its starts.
        mutant: defence taken out, as `training_worker` names it.
    """

    def __init__(self, folder: Path, mutant: str = "") -> None:
        self.folder, self.root, self.mutant = folder, folder / "run", mutant
        self.num_starts = 0

    @property
    def newest(self) -> int:
        """The newest step that can be gone on from."""
        return next(iter(verified_steps(self.root / "checkpoints")), 0)

    def start(self, faults: str = "") -> Trial:
        """Starts the ranks."""
        self.num_starts += 1
        arguments = {"root": str(self.root), "training": TRAINING, "mutant": self.mutant}
        place = self.folder / f"start-{self.num_starts}"
        work = "training_worker:train_toy"
        return rank_server().start(work, NUM_RANKS, place, arguments, faults=faults)

    def finish(self) -> dict[str, Any]:
        """Trains to the end; returns the log by step, and the digest of the weights."""
        result = self.start().results(MOST_SECONDS)[0]
        return steps_of(self.root) | {"weights": result.get("digest"), "end": result.get("ending")}

    def start_and_kill(self, seconds: float, killings: Killings) -> None:
        """Starts, lets it work for some seconds after it has resumed, and kills all ranks."""
        before = self.newest
        trial = self.start()
        # Most kills come among the steps, some while the checkpoint is read.
        if wait_for_work(trial, before if seconds < EARLY_SECONDS else 0):
            time.sleep(seconds)
        codes = trial.codes()
        trial.kill()
        trial.wait(10)
        killings.num_killed += None in codes
        killings.lost += before - resumed_step(trial)
        killings.skipped += trial.log(0).count("skipping the checkpoint")
        killings.progress.append(self.newest)


def wait_for_work(trial: Trial, step: int) -> bool:
    """Waits until a start says where it goes on, or has ended."""
    deadline = time.monotonic() + MOST_SECONDS
    while time.monotonic() < deadline and None in trial.codes():
        text = trial.log(0)
        if "step " in text or (step and "resuming from" in text):
            return True
        time.sleep(0.01)
    return False


def resumed_step(trial: Trial) -> int:
    """Returns the step that a start went on from; 0 = from the beginning."""
    _, found, rest = trial.log(0).partition("resuming from ")
    return int(rest.split("step-")[1].split()[0].strip(":,;.")) if found else 0


def first_difference(expected: dict[str, Any], found: dict[str, Any]) -> str:
    """Returns the first entry of two logs that differs; '' = none."""
    names = [name for name in (*expected, *found) if expected.get(name) != found.get(name)]
    return next(iter(names), "")


def kill_often(folder: Path, num_kills: int, seed: int = 0, mutant: str = "") -> Killings:
    """Kills starts at random instants; a run that ends is compared, and another one begins."""
    draw = random.Random(seed)
    expected = KilledRun(folder / "whole").finish()
    killings = Killings()
    while killings.num_killed < num_kills:
        run = KilledRun(folder / f"killed-{killings.runs}", mutant)
        while run.newest < NUM_STEPS - SAVE_EVERY and killings.num_killed < num_kills:
            run.start_and_kill(draw.uniform(0, 0.5), killings)
        killings.runs += 1
        killings.differing = killings.differing or first_difference(expected, run.finish())
    return killings


def kill_in_recovery(folder: Path, num_rounds: int, mutant: str = "") -> Killings:
    """Each round kills one start while it reads checkpoints and the next after a new one."""
    killings = Killings()
    expected = KilledRun(folder / "whole").finish()
    run = KilledRun(folder / "killed", mutant)
    run.start_and_kill(0.1, killings)
    for _ in range(num_rounds):
        if killings.progress[-1]:
            trial = run.start("load.verify=kill@rank:0")
            wait_until_first_dies(trial)
            trial.kill()
            trial.wait(10)
            killings.num_killed += num_firings(trial.folder)
        before = killings.progress[-1]
        trial = run.start()
        while run.newest <= before and None in trial.codes():
            time.sleep(0.01)
        trial.kill()
        trial.wait(10)
        killings.lost += before - resumed_step(trial)
        killings.progress.append(run.newest)
    killings.differing = first_difference(expected, run.finish())
    return killings


def wait_until_first_dies(trial: Trial) -> None:
    """Waits for the end of rank 0."""
    deadline = time.monotonic() + MOST_SECONDS
    while trial.codes()[0] is None and time.monotonic() < deadline:
        time.sleep(0.01)
