"""Rows D1 to D5, D7 and D8: ranks that die, freeze, lose step with each other, or lag behind."""

from __future__ import annotations

from pathlib import Path

from matrix import Finding, mutant, peer, row
from raw_deepspeed import frozen_figure, torn_figure
from toy_trials import Trial, finish, firings, run, seconds_to_end, start, steps_made

DISAGREED, HUNG, LOST = 76, 78, 79
# Seconds that a phase may take in a trial that hangs in it, and what detecting may take beyond.
LIMIT, BEYOND = 6.0, 10.0
MINUTES = {
    "join": "join_minutes",
    "step": "step_minutes",
    "evaluate": "evaluate_minutes",
    "save": "save_minutes",
}
# Phase -> where in the product a rank dies or freezes.
POINTS = {
    "join": "init.join",
    "step": "loop.forward@step:5",
    "evaluate": "loop.evaluate@step:4",
    "save": "save.shard.written@step:4",
}
EVERYTHING = {"evaluate_every": 4, "checkpoint_every": 4}


def rule(phase: str, action: str) -> str:
    point, _, step = POINTS[phase].partition("@")
    conditions = ",".join(part for part in ("rank:1", step) if part)
    return f"{point}={action}@{conditions}"


# --- D1 -------------------------------------------------------------------------------------------


def kill_in(folder: Path, phase: str, *mutants: str) -> tuple[bool, float, Trial]:
    """Kills rank 1 in a phase; returns whether rank 0 named it, and the seconds it took."""
    launch = {MINUTES[phase]: LIMIT / 60} if phase == "join" else {"step_minutes": 1.0}
    config = {"training": EVERYTHING, "launch": launch}
    trial = start(folder, *mutants, config=config, faults=rule(phase, "kill"))
    seconds, codes = seconds_to_end(trial)
    expected = [HUNG, -9] if phase == "join" else [LOST, -9]
    log = trial.log(0)
    is_named = "rank 1" in log and "died" in log and "Traceback" not in log
    return codes == expected and is_named, seconds, trial


@row(
    "D1",
    fault="kill -9 of a rank while it joins, steps, evaluates or saves",
    expected="every rank ends within seconds (in joining: within its limit), the dead one is named",
    tier="P",
)
def killed_rank(folder: Path, is_thorough: bool) -> Finding:
    phases = list(POINTS) if is_thorough else ["step"]
    results = {phase: kill_in(folder / phase, phase) for phase in phases}
    good = sum(passed for passed, _, _ in results.values())
    seconds = max(s for phase, (_, s, _) in results.items() if phase != "join")
    figure = f"{good} of {len(phases)} phases; all gone {seconds:.1f} s after the kill"
    if "join" in results:
        figure += f", in joining after {results['join'][1]:.1f} s (limit {LIMIT:.0f} s)"
    return Finding(good == len(phases), figure, firings(t for _, _, t in results.values()))


@mutant("D1", "survivors do not look who died")
def unnamed(folder: Path, is_thorough: bool) -> Finding:
    passed, seconds, trial = kill_in(folder, "step", "no_obituary=")
    return Finding(passed, f"{seconds:.1f} s", firings([trial]))


# --- D2, D3 ---------------------------------------------------------------------------------------


def freeze_in(folder: Path, phase: str, *mutants: str) -> tuple[bool, float, Trial]:
    """Stops rank 1 in a phase; returns whether it was named in time, and the seconds it took."""
    config = {"training": EVERYTHING, "launch": {MINUTES[phase]: LIMIT / 60}}
    trial = start(folder, *mutants, config=config, faults=rule(phase, "freeze"))
    seconds, codes = seconds_to_end(trial, patience=LIMIT + BEYOND + 5)
    log = trial.log(0)
    stacks = folder / "stage" / "hang-rank-0.txt"
    is_named = "rank 1" in log and "is stopped (SIGSTOP)" in log and f"phase {phase}" in log
    has_stacks = stacks.is_file() and "File " in stacks.read_text()
    is_soon = seconds < LIMIT + BEYOND
    return codes == [HUNG, -9] and is_named and has_stacks and is_soon, seconds, trial


@row(
    "D2",
    fault="SIGSTOP of a rank while it joins, steps, evaluates or saves",
    expected="the others name rank and phase within limit + 10 s, dump their stacks, end all",
    tier="N",
)
def frozen_rank(folder: Path, is_thorough: bool) -> Finding:
    results = {phase: freeze_in(folder / phase, phase) for phase in POINTS}
    good = sum(passed for passed, _, _ in results.values())
    seconds = max(s for _, s, _ in results.values())
    figure = (
        f"{good} of {len(results)} phases named; ended at most {seconds:.1f} s after the stop, "
        f"the limit being {LIMIT:.0f} s"
    )
    return Finding(good == len(results), figure, firings(t for _, _, t in results.values()))


@mutant("D2", "no watchdog")
def unwatched(folder: Path, is_thorough: bool) -> Finding:
    passed, seconds, trial = freeze_in(folder, "step", "no_watchdog=")
    return Finding(passed, f"{seconds:.1f} s", firings([trial]))


@peer("D2", "raw DeepSpeed, timeout=20 s")
def raw_deepspeed_frozen(folder: Path) -> str:
    return frozen_figure(folder)


WRECKS = {
    "exception": ((), "loop.step=raise@rank:1,step:5", 1, "InjectedError"),
    "abort": ((), "loop.step=abort@rank:1,step:5", -6, "died"),
    "segmentation fault": (("crash=1:5",), "", -11, "died"),
    "interpreter held": (("held_interpreter=1:5",), "", None, "no sign of life"),
}


def wreck(folder: Path, kind: str, *mutants: str) -> tuple[bool, Trial]:
    """Ruins rank 1 in one way; returns whether rank 0 named it with the reason."""
    prepare, faults, code, reason = WRECKS[kind]
    config = {"launch": {"step_minutes": LIMIT / 60 if code is None else 1.0}}
    trial = start(folder, *prepare, *mutants, config=config, faults=faults)
    seconds, codes = seconds_to_end(trial, patience=LIMIT + BEYOND + 5)
    log = trial.log(0)
    is_named = "rank 1" in log and reason in log
    is_ended = codes[0] == (HUNG if code is None else LOST) and codes[1] in (code or -9, 1)
    return is_named and is_ended and seconds < LIMIT + BEYOND, trial


@row(
    "D3",
    fault="an exception, abort, segmentation fault or held interpreter lock on one rank",
    expected="all ranks end, the wrecked one is named with the reason",
    tier="N",
)
def wrecked_rank(folder: Path, is_thorough: bool) -> Finding:
    results = {kind: wreck(folder / kind.replace(" ", "-"), kind) for kind in WRECKS}
    failed = [kind for kind, (passed, _) in results.items() if not passed]
    figure = f"{len(results) - len(failed)} of {len(results)} named"
    figure += f"; not: {', '.join(failed)}" if failed else ""
    return Finding(not failed, figure, firings(t for _, t in results.values()))


@mutant("D3", "no watchdog against a held interpreter")
def unheld(folder: Path, is_thorough: bool) -> Finding:
    passed, trial = wreck(folder, "interpreter held", "no_watchdog=")
    return Finding(passed, "", firings([trial]))


# --- D4, D5 ---------------------------------------------------------------------------------------


def is_stopped_at(
    folder: Path, fault: str, step: int, told: str, stage: int, *mutants: str
) -> tuple[bool, Trial]:
    """Returns whether all ranks stopped before a step, with both views told."""
    codes, trial = run(folder, fault, *mutants, config={"training": {"zero_stage": stage}})
    log = trial.log(0)
    is_told = told in log and log.count("\n  0 ") == 1 and log.count("\n  1 ") == 1
    return codes == [DISAGREED] * 2 and steps_made(trial) == step and is_told, trial


@row(
    "D4",
    fault="one rank samples another path of equal shape at step 7, ZeRO stages 0 to 3",
    expected="all ranks stop before that step and print both paths",
    tier="P",
)
def torn_path(folder: Path, is_thorough: bool) -> Finding:
    stages = (0, 1, 2, 3) if is_thorough else (1,)
    results = [
        is_stopped_at(folder / str(stage), "other_path=1:7", 7, "path", stage) for stage in stages
    ]
    good = sum(passed for passed, _ in results)
    figure = f"{good} of {len(stages)} stages stopped at that very step; 0 steps trained apart"
    return Finding(good == len(stages), figure, firings(t for _, t in results))


@mutant("D4", "calls are not compared")
def uncompared(folder: Path, is_thorough: bool) -> Finding:
    passed, trial = is_stopped_at(folder, "other_path=1:7", 7, "path", 1, "no_fingerprint=")
    return Finding(passed, "", firings([trial]))


@peer("D4", "raw DeepSpeed")
def raw_deepspeed_torn(folder: Path) -> str:
    return torn_figure(folder)


TEARS = {
    "data cursor": ("other_data=1:6", 6, "hold the samples"),
    "prepared data": ("other_tokens=1:6", 6, "samples of the step"),
    "seed": ("other_seed=1:0", 0, "training.seed"),
    "code": ("other_code=1:0", 0, "code"),
    "skipped step": ("skipped_step=1:6", 6, "step"),
    "view of a gradient": ("other_view=1:5", 6, "last gradient"),
}


@row(
    "D5",
    fault="on one rank: another data cursor, data order, seed or code; a skipped step; another "
    "view of whether a gradient was finite",
    expected="all ranks stop at that very step and print what each holds",
    tier="N",
)
def torn_ranks(folder: Path, is_thorough: bool) -> Finding:
    results = {
        name: is_stopped_at(folder / name.replace(" ", "-"), fault, step, told, 1)
        for name, (fault, step, told) in TEARS.items()
    }
    failed = [name for name, (passed, _) in results.items() if not passed]
    figure = f"{len(results) - len(failed)} of {len(results)} caught at that very step"
    figure += f"; not: {', '.join(failed)}" if failed else ""
    return Finding(not failed, figure, firings(t for _, t in results.values()))


@mutant("D5", "the samples of a step are not counted")
def uncounted(folder: Path, is_thorough: bool) -> Finding:
    fault, step, told = TEARS["data cursor"]
    passed, trial = is_stopped_at(folder, fault, step, told, 1, "no_samples=")
    return Finding(passed, "", firings([trial]))


@mutant("D5", "ranks do not compare what they were started on")
def unchecked(folder: Path, is_thorough: bool) -> Finding:
    fault, step, told = TEARS["code"]
    passed, trial = is_stopped_at(folder, fault, step, told, 1, "no_start_check=")
    return Finding(passed, "", firings([trial]))


# --- D7, D8 ---------------------------------------------------------------------------------------


def missing(folder: Path, num_started: int, world: int) -> tuple[bool, float]:
    """Starts too few ranks; returns whether each said which are missing, and the seconds."""
    config = {"launch": {"join_minutes": LIMIT / 60}}
    trial = start(folder, config=config, num_ranks=num_started, world=world)
    (folder / "faults.log").write_text("ranks left out\n")
    seconds, codes = seconds_to_end(trial)
    absent = range(num_started, world)
    is_named = all(f"rank {rank} has not joined" in trial.log() for rank in absent)
    return codes == [HUNG] * num_started and is_named, seconds


@row(
    "D7",
    fault="a rank is missing at the start, or the number of ranks is wrong",
    expected="the others name the missing ones within the limit of joining",
    tier="N",
)
def missing_ranks(folder: Path, is_thorough: bool) -> Finding:
    results = [missing(folder / f"{n}-of-{w}", n, w) for n, w in ((1, 2), (2, 4))]
    good, seconds = sum(passed for passed, _ in results), max(s for _, s in results)
    figure = f"{good} of 2 named; {seconds:.1f} s, start included, the limit being {LIMIT:.0f} s"
    return Finding(good == 2, figure, 2)


@mutant("D7", "the missing rank is there")
def complete(folder: Path, is_thorough: bool) -> Finding:
    passed, _ = missing(folder, 2, 2)
    return Finding(passed, "", 1)


def lag(folder: Path, *mutants: str) -> tuple[bool, Trial]:
    """Slows rank 1 down; returns whether the run ended well and the log named the rank."""
    trial = start(folder, "slow_rank=1:0", *mutants, config={"training": {"log_every": 4}})
    codes = finish(trial)
    log = (folder / "stage" / "log.txt").read_text()
    return codes == [0, 0] and "rank 1 is slow" in log, trial


@row(
    "D8",
    fault="one rank takes ten times as long as the other to get at its data",
    expected="the run ends well and the log names the rank",
    tier="N",
)
def slow_rank(folder: Path, is_thorough: bool) -> Finding:
    passed, trial = lag(folder)
    return Finding(passed, "named" if passed else "not named", firings([trial]))


@mutant("D8", "slow ranks are not looked for")
def unlooked(folder: Path, is_thorough: bool) -> Finding:
    passed, trial = lag(folder, "no_straggler=")
    return Finding(passed, "", firings([trial]))
