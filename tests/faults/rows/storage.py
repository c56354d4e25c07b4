"""Rows C1 to C4: full, failing and slow disks."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from forked_ranks import num_firings, rank_server
from matrix import Finding, mutant, row
from saving_trials import NUM_RANKS, Saving, is_good, recovers, verified_steps
from small_disks import small_disk, small_disks, why_not
from strace_kill import Tracer
from strace_kill import why_not as why_not_trace

NUM_VALUES = 50_000  # 200 kB a rank
CHECKPOINT_BYTES = 4 * NUM_VALUES * NUM_RANKS
DISK_BYTES = 6 * CHECKPOINT_BYTES
ROOM_LINE = re.compile(r"[\d,]+ bytes needed, [\d,]+ free")
ERRORS = ("ENOSPC", "EDQUOT", "EIO", "EROFS")
# Every place of a save where a rank writes, syncs or renames; the second part is the rank.
PLACES = (
    ("save.shard.before", 0), ("save.shard.written", 0), ("save.state.before", 0),
    ("save.state.written", 0), ("save.manifest.before", 0), ("save.manifest.written", 0),
    ("save.rename.before", 0), ("save.shard.before", 1), ("save.shard.written", 1),
)  # fmt: skip


@row(
    "C1",
    fault="a save finds from 0 to 1.2 times the room it needs; then there is room again",
    expected="a line with the bytes needed and free; nothing left over; others load; it recovers",
    tier="P",
)
def full_disk(folder: Path, is_thorough: bool, without: Sequence[str] = ()) -> Finding:
    reason = why_not(folder)
    if reason:
        return Finding.skip(reason)
    num_sizes = 20 if is_thorough else 3
    sizes = [int(1.2 * CHECKPOINT_BYTES * number / (num_sizes - 1)) for number in range(num_sizes)]
    found = []
    for taken_out in ([*without], [*without, "room check"]):
        with small_disks(folder / f"without-{len(taken_out)}", num_sizes, DISK_BYTES) as disks:
            cases = [[str(disk), free] for disk, free in zip(disks, sizes, strict=True)]
            arguments = {"cases": cases, "num_values": NUM_VALUES, "without": taken_out}
            work = "saving_worker:save_in_little_room"
            place = folder / f"ranks-{len(taken_out)}"
            results = rank_server().start(work, NUM_RANKS, place, arguments).results()
            roots = [disk / "checkpoints" for disk in disks]
            found += [
                (one == other, one, verified_steps(root), "room check" not in taken_out)
                for one, other, root in zip(*map(strip_seconds, results), roots, strict=True)
            ]
    refused = [case for case in found if case[1][1][0]]
    lines = sum(bool(ROOM_LINE.search(case[1][1][0])) for case in refused if case[3])
    leftovers = sum(
        names not in (["step-2"], ["step-2", "step-4"]) for _, (_, (_, names), _), *_ in found
    )
    recovered = sum(not saves[2][0] and 6 in verified for _, saves, verified, _ in found)
    agreed = all(case[0] for case in found)
    num_checked = sum(case[3] for case in refused)
    passed = agreed and lines == num_checked and not leftovers and recovered == len(found)
    figure = (
        f"{len(found)} disks, {len(refused)} saves refused: {lines} of {num_checked} foreseen with "
        f"bytes needed and free, {leftovers} leftovers, {recovered} of {len(found)} recovered"
    )
    return Finding(passed, figure, len(refused))


def strip_seconds(result: list[Any]) -> list[Any]:
    """Returns what a rank saw without clocks."""
    return [[save[:2] for save in saves] for saves in result]


@mutant("C1", "what a failed save wrote is left there")
def without_sweep(folder: Path, is_thorough: bool) -> Finding:
    return full_disk(folder, False, without=["sweep"])


def save_under(rules: Sequence[str], folder: Path, num_steps: int, mutant: str = "") -> list[Any]:
    """Saves under fault rules; returns each rank's view of every save."""
    arguments = {"root": str(folder / "checkpoints"), "num_steps": num_steps, "mutant": mutant}
    work = "saving_worker:save_with_errors"
    trial = rank_server().start(
        work, NUM_RANKS, folder / "ranks", arguments, faults=";".join(rules)
    )
    return trial.results()


@row(
    "C2",
    fault="ENOSPC, EDQUOT, EIO, EROFS where a save writes, syncs and renames; a full log disk",
    expected="all ranks know that it was not saved, nothing is left over; full logs stop nothing",
    tier="N",
)
def failing_disk(folder: Path, is_thorough: bool) -> Finding:
    cases = [(error, *place) for error in ERRORS for place in PLACES]
    rules = [
        f"{point}={error}@rank:{rank},step:{2 * number}"
        for number, (error, point, rank) in enumerate(cases, 1)
    ]
    views = save_under(rules, folder / "named", 2 * len(cases) + 1)
    good = sum(
        all(view[step - 1][0] and is_clean(view[step - 1][1]) for view in views)
        and not any(view[step][0] for view in views)
        for step in range(2, 2 * len(cases) + 1, 2)
    )
    num_calls, good_calls = failing_calls(folder / "calls", 12 if is_thorough else 2)
    has_outlived = outlives_full_logs(folder / "logs")
    passed = good == len(cases) and good_calls == num_calls and has_outlived is not False
    logs = {True: "outlived", False: "fatal", None: "not tried"}[has_outlived]
    figure = (
        f"{good} of {len(cases)} errors at named points and {good_calls} of {num_calls} failed "
        f"system calls handled; full log disk {logs}"
    )
    return Finding(passed, figure, num_firings(folder / "named" / "ranks") + num_calls)


def is_clean(names: Sequence[str]) -> bool:
    """Whether a folder holds nothing but published checkpoints."""
    return all(re.fullmatch(r"step-\d+", name) for name in names)


def failing_calls(folder: Path, most: int) -> tuple[int, int]:
    """Lets system calls of a save fail by strace; returns how many, and how many went well."""
    if why_not_trace():
        return 0, 0
    saving = Saving(folder)
    calls = ("write", "fsync", "rename", "renameat", "openat", "mkdir")
    points = [point for point in saving.points(0) if point[0] in calls]
    good = 0
    chosen = points[:: max(1, len(points) // most)]
    for number, (call, when) in enumerate(chosen):
        error = ERRORS[number % len(ERRORS)]
        root, trial = saving.start(f"fail-{call}-{when}", stop=0)
        inject = f"{call}:error={error}:when={when}"
        tracer = Tracer(trial.pids[0], folder / f"fail-{call}-{when}.trace", inject)
        views = trial.results()
        tracer.close()
        is_agreed = views[0] == views[1]
        is_left_clean = is_clean([path.name for path in root.iterdir()])
        is_right = is_agreed and is_left_clean and is_good(root)
        good += is_right and recovers(root, folder / f"again-{call}-{when}")
    return len(chosen), good


def outlives_full_logs(folder: Path) -> bool | None:
    """Trains with metrics, log and curves on full disks; ``None`` = that cannot be set up."""
    if why_not(folder):
        return None
    root = folder / "run"
    root.mkdir(parents=True)
    for name in ("metrics.jsonl", "log.txt"):
        (root / name).symlink_to("/dev/full")
    with small_disk(root / "tensorboard", 4096) as disk:
        (disk / "filler").write_bytes(bytes(4096))
        arguments = {"root": str(root), "training": {"num_steps": 8, "checkpoint_every": 4}}
        trial = rank_server().start("training_worker:train_toy", 1, folder / "ranks", arguments)
        (result,) = trial.results(timeout=120)
    said = trial.log().count("going on")
    is_saved = verified_steps(root / "checkpoints")[:1] == [8]
    return result.get("ending") == "finished" and is_saved and 1 <= said <= 4


@mutant("C2", "rank 0 does not wait for the others' word")
def unheard(folder: Path, is_thorough: bool) -> Finding:
    views = save_under(["save.shard.written=EIO@rank:1,step:2"], folder, 3, "no wait")
    is_known = all(view[1][0] for view in views)
    return Finding(is_known, "", num_firings(folder / "ranks"))


@row(
    "C3",
    fault="only rank 1 cannot write, of two ranks in training",
    expected="both agree that nothing was saved, within 5 s; training goes on and saves again",
    tier="P",
)
def one_rank_fails(folder: Path, is_thorough: bool, mutant: str = "") -> Finding:
    rules = ["save.shard.written=ENOSPC@rank:1,step:2"]
    views = save_under(rules, folder / "saving", 3, mutant)
    seconds = max(view[1][2] for view in views)
    is_agreed = all(view[1][0].startswith("rank 1: ") or mutant for view in views)
    is_agreed = is_agreed and verified_steps(folder / "saving" / "checkpoints") == [3, 1]
    is_outlived = bool(mutant) or training_outlives(folder / "training")
    figure = f"agreed after {seconds:.1f} s; training went on: {is_outlived}"
    is_right = is_agreed and seconds < 5 and is_outlived
    return Finding(is_right, figure, num_firings(folder / "saving" / "ranks"))


def training_outlives(folder: Path) -> bool:
    """Trains on two ranks while one save fails on the second; the next one must stand."""
    root = folder / "run"
    training = {"num_steps": 8, "checkpoint_every": 2, "keep_checkpoints": 9}
    arguments = {"root": str(root), "training": training}
    trial = rank_server().start(
        "training_worker:train_toy", NUM_RANKS, folder / "ranks", arguments,
        faults="save.shard.written=ENOSPC@rank:1,step:4",
    )  # fmt: skip
    endings = [result.get("ending") for result in trial.results(timeout=120)]
    is_told = "training goes on" in (root / "log.txt").read_text()
    steps = verified_steps(root / "checkpoints")
    return endings == ["finished"] * NUM_RANKS and is_told and steps == [8, 6, 2]


@mutant("C3", "a rank speaks for all of them")
def one_rank_fails_unheard(folder: Path, is_thorough: bool) -> Finding:
    return one_rank_fails(folder, is_thorough, mutant="no wait")


@row(
    "C4",
    fault="a disk that takes 5 s to sync a file on one rank, a limit of 20 s for a save",
    expected="the watchdog stays silent, training goes on",
    tier="N",
)
def slow_disk(folder: Path, is_thorough: bool, limit: float = 20) -> Finding:
    arguments = {
        "root": str(folder / "run"), "save_minutes": limit / 60,
        "training": {"num_steps": 8, "checkpoint_every": 4},
    }  # fmt: skip
    rule = "save.shard.written=sleep:5@rank:1,step:4"
    work, place = "training_worker:train_guarded", folder / "ranks"
    trial = rank_server().start(work, NUM_RANKS, place, arguments, faults=rule)
    codes = trial.wait(200)
    num_alarms = sum(code != 0 for code in codes)
    saved = verified_steps(folder / "run" / "checkpoints")
    figure = f"{num_alarms} false alarms; steps saved: {saved}"
    return Finding(not num_alarms and saved == [8, 4], figure, num_firings(place))


@mutant("C4", "a limit that is shorter than the disk is slow")
def too_short_a_limit(folder: Path, is_thorough: bool) -> Finding:
    return slow_disk(folder, is_thorough, limit=2)
