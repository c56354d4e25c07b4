"""Rows A2, A3, C7: a save, killed at each of its points; a rank that is slower than the others."""

from __future__ import annotations

import time
from pathlib import Path

from forked_ranks import num_firings, rank_server
from matrix import Finding, mutant, peer, row
from saving_trials import (
    NAMED_POINTS,
    NUM_RANKS,
    STEPS,
    Saving,
    chosen_step,
    every,
    is_good,
    is_whole,
    recovers,
    verified_steps,
)
from strace_kill import wait_until, why_not

SLOW_SECONDS = 3


def kill_everywhere(saving: Saving, most: int | None, folder: Path) -> tuple[int, int, int]:
    """Kills each rank at every call, or at some; returns points tried, good, not fired."""
    tried = good = missed = 0
    for rank in range(NUM_RANKS):
        for call, number in every(saving.points(rank), most):
            root, has_fired = saving.kill_at_call(rank, call, number)
            is_right = is_good(root, saving.mutant)
            if is_right and not saving.mutant:
                is_right = recovers(root, folder / f"again-{rank}-{call}-{number}")
            tried, good, missed = tried + 1, good + is_right, missed + (not has_fired)
    return tried, good, missed


def kill_at_names(saving: Saving, folder: Path) -> tuple[int, int, int]:
    """Kills each rank at every named point that it passes."""
    tried = good = missed = 0
    for rank in range(NUM_RANKS):
        for point in NAMED_POINTS if rank == 0 else NAMED_POINTS[:3]:
            root, has_fired = saving.kill_at_point(rank, point)
            is_right = is_good(root) and recovers(root, folder / f"again-{rank}-{point}")
            tried, good, missed = tried + 1, good + is_right, missed + (not has_fired)
    return tried, good, missed


@row(
    "A2",
    fault="kill -9 at every system call of a save that touches the disk, on rank 0 and on rank 1",
    expected="the newest or the one before it loads whole; the next start saves; no leftovers",
    tier="N",
)
def every_crash_point(folder: Path, is_thorough: bool) -> Finding:
    names = kill_at_names(Saving(folder / "names"), folder / "names")
    if why_not():
        tried, good, missed = names
        figure = f"named points only ({why_not()}): {tried} tried, {good} good"
    else:
        calls = kill_everywhere(Saving(folder / "calls"), None if is_thorough else 4, folder)
        tried, good, missed = (a + b for a, b in zip(names, calls, strict=True))
        figure = f"{calls[0]} system calls and {names[0]} named points: {good} of {tried} good"
    return Finding(good == tried and not missed, figure, tried - missed)


@mutant("A2", "files are written under their final names and the newest folder is trusted")
def in_place(folder: Path, is_thorough: bool) -> Finding:
    if why_not():
        return Finding.skip(str(why_not()))
    tried, good, missed = kill_everywhere(Saving(folder, mutant="in place"), 6, folder)
    return Finding(good == tried, f"{good} of {tried} good", tried - missed)


@row(
    "A3",
    fault="rank 1 is seconds slower than rank 0 in a save; kill -9 when rank 0 has written",
    expected="the unfinished checkpoint cannot be seen; the one before it loads whole",
    tier="P",
)
def slow_rank(folder: Path, is_thorough: bool, mutant: str = "") -> Finding:
    rules = f"save.shard.before=sleep:{SLOW_SECONDS}@rank:1,step:{STEPS[-1]}"
    root, trial = Saving(folder, keep=2, mutant=mutant).start("slow", faults=rules)
    state = f"step-{STEPS[-1]}*/state.json"
    wait_until(lambda: any(root.glob(state)), "rank 0 has not written")
    time.sleep(0.5)
    trial.kill()
    trial.wait(10)
    step = chosen_step(root, mutant)
    figure = f"killed while rank 1 slept: goes on from step {step}, whole: {is_whole(root, step)}"
    return Finding(step == STEPS[0] and is_whole(root, step), figure, num_firings(trial.folder))


@mutant("A3", "rank 0 publishes without waiting for the others")
def without_waiting(folder: Path, is_thorough: bool) -> Finding:
    return slow_rank(folder, is_thorough, mutant="no wait")


@peer("A3", "raw DeepSpeed")
def deepspeed_slow_rank(folder: Path) -> str:
    trial = rank_server().start("training_worker:raw_deepspeed_slow_save", NUM_RANKS, folder)
    latest = folder / "latest"
    wait_until(lambda: latest.is_file() and latest.read_text() == "step4", "no second save", 120)
    time.sleep(0.3)
    trial.kill()
    trial.wait(10)
    missing = {path.name for path in (folder / "step2").iterdir()}
    missing -= {path.name for path in (folder / "step4").iterdir()}
    if not missing:
        return "checkpoint complete"
    return f"`latest` names a checkpoint without {', '.join(sorted(missing))}"


@row(
    "C7",
    fault="kill -9 at every rename and removal of a save, keeping 1, 2 and 3 checkpoints",
    expected="at least one checkpoint verifies at every instant, and as many as are kept",
    tier="N",
)
def retention_under_kill(folder: Path, is_thorough: bool, mutant: str = "") -> Finding:
    if why_not():
        return Finding.skip(str(why_not()))
    tried, missed, fewest = 0, 0, {}
    for keep in (1, 2, 3) if not mutant else (1,):
        steps = tuple(range(2, 2 * keep + 4, 2))
        saving = Saving(folder / f"keep-{keep}", keep, steps, mutant)
        removals = ("rename", "unlink", "unlinkat", "rmdir")
        points = [point for point in saving.points(0) if point[0] in removals]
        for call, number in every(points, None if is_thorough else 3):
            root, has_fired = saving.kill_at_call(0, call, number)
            num_verified = sum(is_whole(root, step) for step in verified_steps(root))
            fewest[keep] = min(fewest.get(keep, num_verified), num_verified)
            tried, missed = tried + 1, missed + (not has_fired)
    passed = all(count >= keep for keep, count in fewest.items()) and not missed
    shown = ", ".join(f"{count} at keep {keep}" for keep, count in fewest.items())
    return Finding(passed, f"{tried} kills: fewest verified checkpoints {shown}", tried - missed)


@mutant("C7", "room is made before the new checkpoint is written")
def eager_retention(folder: Path, is_thorough: bool) -> Finding:
    return retention_under_kill(folder, is_thorough, mutant="eager")
