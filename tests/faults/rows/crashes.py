"""Rows A1 and A5: kills of a whole training job at any instant, and of its recovery."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

from cold_runs import kill_cold
from killed_runs import Killings, kill_in_recovery, kill_often
from matrix import Finding, mutant, row


def told(killings: Killings) -> str:
    """Returns the figures of a series of kills."""
    return (
        f"{killings.lost} committed steps lost, {killings.skipped} corrupt loads, "
        f"first differing step: {killings.differing or 'none'}"
    )


def is_exact(killings: Killings) -> bool:
    """Whether nothing was lost and nothing differs."""
    return not (killings.lost or killings.skipped or killings.differing)


@row(
    "A1",
    fault="kill -9 of both ranks at random instants, a checkpoint every 2 steps",
    expected="goes on from the newest that verifies; log and weights as of an uninterrupted run",
    tier="N",
)
def random_kills(folder: Path, is_thorough: bool) -> Finding:
    killings = kill_often(folder / "forked", 45 if is_thorough else 3)
    if is_thorough:
        cold = kill_cold(folder / "cold", 5)
        killings.num_killed += cold.num_killed
        killings.runs += cold.runs
        killings.differing = killings.differing or cold.differing
    figure = f"{killings.num_killed} kills in {killings.runs} runs: {told(killings)}"
    return Finding(is_exact(killings), figure, killings.num_killed)


@mutant("A1", "a start goes on from the checkpoint before the newest")
def older_checkpoint(folder: Path, is_thorough: bool) -> Finding:
    killings = kill_often(folder, 4, mutant="one back")
    return Finding(is_exact(killings), told(killings), killings.num_killed)


@row(
    "A5",
    fault="kill -9 while a killed run recovers, and again after its next checkpoint, 10 rounds",
    expected="every round gets further; the end as of an uninterrupted run",
    tier="N",
)
def double_faults(folder: Path, is_thorough: bool, mutant: str = "") -> Finding:
    num_rounds = 10 if is_thorough and not mutant else 3
    killings = kill_in_recovery(folder, num_rounds, mutant)
    steps = killings.progress
    num_ahead = sum(later > earlier for earlier, later in pairwise(steps))
    figure = f"{num_ahead} of {num_rounds} rounds with progress: {told(killings)}"
    return Finding(num_ahead == num_rounds and is_exact(killings), figure, killings.num_killed)


@mutant("A5", "a start goes on from the checkpoint before the newest")
def older_in_recovery(folder: Path, is_thorough: bool) -> Finding:
    return double_faults(folder, False, mutant="one back")
