"""Row D9: a scheduler's signals, to one rank or all, once or twice, in every phase."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from matrix import Finding, mutant, row
from toy_trials import (
    Trial,
    endings,
    finish,
    firings,
    send,
    start,
    steps_made,
    wait_for_fault,
    wait_for_step,
)

INTERRUPTED, TERMINATED = 75, 143
STEPS = 40
# Long enough for a signal to come while a rank is held at a point.
HELD = "sleep:1.5@rank:0"
CONFIG = {"training": {"num_steps": STEPS, "evaluate_every": 10, "checkpoint_every": 10}}

Preempt = Callable[[Trial], None]


def in_step(*ranks: int) -> Preempt:
    def preempt(trial: Trial) -> None:
        wait_for_step(trial, 5)
        send(trial, ranks)

    return preempt


def at_fault(*ranks: int) -> Preempt:
    def preempt(trial: Trial) -> None:
        wait_for_fault(trial)
        time.sleep(0.3)
        send(trial, ranks)

    return preempt


# Name -> (point where rank 0 is held so that the signal meets the phase, what is sent).
CASES: dict[str, tuple[str, Preempt]] = {
    "one rank": (f"loop.step={HELD},step:6", in_step(1)),
    "all ranks": (f"loop.step={HELD},step:6", in_step(0, 1)),
    "first step": (f"loop.step={HELD},step:0", at_fault(1)),
    "evaluation": (f"loop.evaluate={HELD},step:10", at_fault(1)),
    "save": (f"save.shard.written={HELD},step:10", at_fault(1)),
    "joining": (f"init.join={HELD}", at_fault(0, 1)),
}


def uninterrupted(folder: Path) -> list[str]:
    """Returns how a run without signals ends."""
    trial = start(folder, config=CONFIG)
    finish(trial)
    return endings(trial)


def preempted(folder: Path, case: str, *mutants: str) -> tuple[bool, list[str], int, Trial]:
    """Stops a run and resumes it.

    Returns:
        Whether every rank left with 75; how the resumed run ended; steps made again; the trial.
    """
    held, preempt = CASES[case]
    trial = start(folder, *mutants, config=CONFIG, faults=held)
    preempt(trial)
    codes = finish(trial)
    made = steps_made(trial)
    resumed = start(folder / "again", config=CONFIG) if case == "joining" else resume(trial)
    finish(resumed)
    rows = (trial.folder / "stage" / "metrics.jsonl").read_text() if case != "joining" else ""
    again = rows.count('"kind": "train"') - STEPS if rows else 0
    is_saved = codes == [INTERRUPTED] * 2 and made < STEPS
    return is_saved, endings(resumed), again, trial


def resume(trial: Trial) -> Trial:
    return start(trial.folder, config=CONFIG)


def twice(folder: Path) -> tuple[bool, float, Trial]:
    """Sends a second signal while the run cannot stop; returns whether all left at once."""
    faults = "save.shard.written=sleep:30@rank:0,step:10"
    trial = start(folder, config=CONFIG, faults=faults)
    wait_for_fault(trial)
    send(trial, (0, 1))
    time.sleep(1.5)
    send(trial, (0, 1))
    sent = time.monotonic()
    codes = finish(trial)
    return codes == [TERMINATED] * 2, time.monotonic() - sent, trial


@row(
    "D9",
    fault="SIGTERM to one rank or all, in steps, the first step, evaluation, save and joining; "
    "a second one",
    expected="saved at one step by all ranks, code 75, resumed byte by byte; the second one leaves "
    "within 2 s",
    tier="N",
)
def preemptions(folder: Path, is_thorough: bool) -> Finding:
    whole = uninterrupted(folder / "whole")
    results = {case: preempted(folder / case.replace(" ", "-"), case) for case in CASES}
    saved = sum(is_saved for is_saved, *_ in results.values())
    lost = sum(again for _, _, again, _ in results.values())
    equal = sum(ends == whole for _, ends, _, _ in results.values())
    has_left, seconds, trial = twice(folder / "twice")
    passed = saved == equal == len(CASES) and lost == 0 and has_left and seconds < 2
    figure = (
        f"{saved} of {len(CASES)} preemptions saved, {lost} steps lost, {equal} of {len(CASES)} "
        f"resumed byte by byte; second signal: left after {seconds:.1f} s"
    )
    trials = [trial, *(t for *_, t in results.values())]
    return Finding(passed and len(whole) == 2, figure, firings(trials))


@mutant("D9", "signals end a rank on the spot")
def unagreed(folder: Path, is_thorough: bool) -> Finding:
    is_saved, _, again, trial = preempted(folder, "one rank", "no_agreed_stop=")
    return Finding(is_saved and again == 0, "", firings([trial]))
