"""Rows A8 and B1 to B4: runs that go on as if nothing had been, or are refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_args, get_type_hints

from forked_ranks import rank_server
from matrix import Check, Finding, mutant, peer, row
from resuming_worker import NUM_SAMPLES, ROWS_PER_STEP, STEPS, first_difference, oracle

from magicbert.config.sections import TrainingSection

TOLERANCE = 1e-5
MISSING = "no checkpoint there verifies"


def run_ranks(target: str, num_ranks: int, folder: Path, arguments: Any) -> list[Any]:
    """Calls a function of the worker on some ranks; returns what each of them found."""
    trial = rank_server().start(f"resuming_worker:{target}", num_ranks, folder, arguments)
    return trial.results(timeout=300)


def without(check: Any, part: str) -> Check:
    """Returns a check on a product without a part."""
    return lambda folder, is_thorough: check(folder, False, part)


# --- A8 ---------------------------------------------------------------------------------------


@row(
    "A8",
    fault="each file of a checkpoint is deleted in turn, of the newest one and of all",
    expected="falls back to the one before and names the file; none left: an error, never step 0",
    tier="P",
)
def lose_files(folder: Path, is_thorough: bool, part: str | None = None) -> Finding:
    """Each file of a checkpoint goes in turn."""
    arguments = {"without": part, "most": 9 if is_thorough else 2}
    cases = run_ranks("missing_pieces", 2, folder, arguments)[0]
    wrong = [f"{case['file']} of steps {case['steps']}" for case in cases if not is_right(case)]
    silent = sum(1 in case["made again"] for case in cases)
    fell_back = sum(case["ending"] == "finished" for case in cases)
    figure = f"{len(cases)} losses: {silent} silent restarts, {fell_back} fell back, "
    figure += f"{len(cases) - fell_back} refused" + (f"; wrong: {wrong[0]}" if wrong else "")
    return Finding(not wrong, figure, len(cases))


def is_right(case: dict[str, Any]) -> bool:
    """Whether a run fell back to the checkpoint before, or, without one, did not begin at all."""
    if len(case["steps"]) == 1:
        expected = case["ending"] == "finished" and case["made again"] == [5, 6, 7, 8]
    else:
        expected = MISSING in case["ending"] and case["made again"] == []
    return expected and bool(case["named"])


mutant("A8", "files are not compared with the manifest")(without(lose_files, "verification"))
mutant("A8", "begins anew where no checkpoint verifies")(
    without(lose_files, "refusal to begin anew")
)


@peer("A8", "raw DeepSpeed")
def deepspeed_loses_files(folder: Path) -> str:
    """Counts what ZeRO-1 does without one of its files."""
    return told(ask_peer("deepspeed_loses_files", 1, folder)[0])


@peer("A8", "HF Trainer")
def trainer_loses_files(folder: Path) -> str:
    """Counts what the Trainer does without one of its files."""
    return told(ask_peer("trainer_loses_files", 1, folder)[0])


def ask_peer(target: str, num_ranks: int, folder: Path, arguments: Any = None) -> list[Any]:
    """Calls a function of the peers on some ranks."""
    trial = rank_server().start(f"resuming_peers:{target}", num_ranks, folder, arguments)
    return trial.results(timeout=300)


def told(cases: list[Any]) -> str:
    """Names the files whose loss nobody hears of."""
    silent = [f"{outcome} without {name}" for name, outcome in cases if is_silent(outcome)]
    return f"{len(silent)} of {len(cases)} losses silent ({', '.join(silent)})"


def is_silent(outcome: str) -> bool:
    """Whether a run went on, and to something else."""
    return outcome in ("began anew", "another result")


# --- B1 ---------------------------------------------------------------------------------------

STAGES = get_args(get_type_hints(TrainingSection)["zero_stage"])
OFFLOAD = {"training": {"offload_optimizer": True}}
CELLS: list[dict[str, Any]] = [{"stage": stage} for stage in STAGES]
MORE_CELLS: list[dict[str, Any]] = [
    *({"stage": stage, "precision": "bf16"} for stage in STAGES),
    *({"stage": stage, **OFFLOAD} for stage in STAGES[1:]),
]
# Within an epoch, the step in which one ends, and the step with which one ends.
FEW_STOPS = [3, 4, 9]
FEW_CELLS = {1: [{"stage": 1}, {"stage": 2, "precision": "bf16"}], 2: [{"stage": 0}, {"stage": 3}]}


@row(
    "B1",
    fault="stop by SIGTERM at each of 20 steps, within and at the edges of epochs (bf16, offload: "
    f"at three); kill -9 within accumulation; ZeRO 0-{STAGES[-1]}, 1 and 2 ranks",
    expected="losses, norms, rates, paths, anchors, samples and weights equal to the last bit",
    tier="P",
)
def stop_everywhere(folder: Path, is_thorough: bool) -> Finding:
    """Stops runs at their steps by a signal, and kills one within an accumulation."""
    assert NUM_SAMPLES * 2 == ROWS_PER_STEP * 9, "an epoch must end with step 9"
    plan: list[tuple[dict[int, list[Any]], list[int]]] = [(FEW_CELLS, FEW_STOPS)]
    if is_thorough:
        every_step = list(range(1, STEPS))
        plan = [({1: CELLS, 2: CELLS}, every_step), ({1: MORE_CELLS, 2: MORE_CELLS}, FEW_STOPS)]
    num_stops, num_planned, num_cells = 0, 0, 0
    differences = killed_within_a_step(folder / "killed")
    for number, (cells, stops) in enumerate(plan):
        made, found = stop_cells(folder / str(number), cells, stops)
        num_stops, differences = num_stops + made, differences + found
        num_cells += sum(map(len, cells.values()))
        num_planned += sum(map(len, cells.values())) * len(stops)
    shown = f"first differing line: {differences[0]}" if differences else "no differing byte"
    figure = f"{num_cells} cells, {num_stops} stops, 1 kill within accumulation: {shown}"
    return Finding(not differences and num_stops == num_planned, figure, num_stops + 1)


def stop_cells(
    folder: Path, cells: dict[int, list[Any]], stops: list[int], part: str | None = None
) -> tuple[int, list[str]]:
    """Returns how many stops took place and what differed after them."""
    num_stops, differences = 0, []
    for num_ranks, chosen in cells.items():
        arguments = {"cells": chosen, "stops": stops, "without": part}
        found = run_ranks("stop_and_go", num_ranks, folder / str(num_ranks), arguments)[0]
        num_stops += sum(cell["stops"] for cell in found)
        differences += [cell["difference"] for cell in found if cell["difference"]]
    return num_stops, differences


def stop_once(folder: Path, is_thorough: bool, part: str) -> Finding:
    """One cell of B1 and one stop, for a mutant."""
    num_stops, differences = stop_cells(folder, {2: [{"stage": 1}]}, [4], part)
    return Finding(not differences, "; ".join(differences), num_stops)


def killed_within_a_step(folder: Path) -> list[str]:
    """Kills the last rank between two micro-batches; compares the rest with a whole run."""
    options: dict[str, Any] = {"stage": 1, "training": {"checkpoint_every": 5}}
    whole = run_ranks("one_run", 2, folder / "whole", options)
    killed = options | {"kill_at": [7, 2]}
    trial = rank_server().start("resuming_worker:one_run", 2, folder / "cut", killed)
    assert -9 in trial.wait(timeout=120), trial.log()
    rest = run_ranks("one_run", 2, folder / "cut", options)
    lines = [sorted(set(oracle(folder / name / "run"))) for name in ("whole", "cut")]
    difference = first_difference(*lines)
    return [text for text in (difference, None if whole == rest else "the weights") if text]


mutant("B1", "dropout from the global generator")(without(stop_once, "keyed dropout"))
mutant("B1", "moments are not restored")(without(stop_once, "moments"))


@peer("B1", "raw DeepSpeed")
def deepspeed_goes_on(folder: Path) -> str:
    """Stops raw DeepSpeed with dropout, whose checkpoints hold no random state."""
    found = ask_peer("deepspeed_goes_on", 1, folder, "compare")[0]
    return f"with dropout, stopped once: {found}"


# --- B2 ---------------------------------------------------------------------------------------


@row(
    "B2",
    fault="two identical runs, their global random generators in different states",
    expected="logs and weights equal to the last bit",
    tier="P",
)
def run_twice(folder: Path, is_thorough: bool, part: str | None = None) -> Finding:
    """Runs the same command twice in processes whose global generators differ."""
    options = {"stage": 2, "precision": "bf16", "without": part}
    digests = [run_ranks("one_run", 2, folder / name, options) for name in "ab"]
    texts = ["\n".join(oracle(folder / name / "run")) for name in "ab"]
    num_differing = sum(a != b for a, b in zip(*texts, strict=False))
    num_differing += abs(len(texts[0]) - len(texts[1]))
    is_same = num_differing == 0 and digests[0] == digests[1]
    return Finding(is_same, f"{num_differing} of {len(texts[0])} bytes differ", 2)


mutant("B2", "dropout from the global generator")(without(run_twice, "keyed dropout"))


# --- B3 ---------------------------------------------------------------------------------------

# (ranks, cell) of one start after another.
ROUTES: dict[str, list[tuple[int, dict[str, Any]]]] = {
    "2-1-4 ranks": [(2, {"stage": 1}), (1, {"stage": 1}), (4, {"stage": 1})],
    "1-2 ranks": [(1, {"stage": 2}), (2, {"stage": 2})],
    "4-2 ranks": [(4, {"stage": 1}), (2, {"stage": 1})],
    f"stages 0 to {STAGES[-1]} and back": [(2, {"stage": n}) for n in (*STAGES, 0)],
    "offload on and off": [(2, {"stage": 1}), (2, {"stage": 1, **OFFLOAD}), (2, {"stage": 1})],
    "2-1-4 ranks, stages 3-0-2": [(2, {"stage": 3}), (1, {"stage": 0}), (4, {"stage": 2})],
    "1-4-2 ranks, stages 1-3-0": [(1, {"stage": 1}), (4, {"stage": 3}), (2, {"stage": 0})],
}


@row(
    "B3",
    fault="a run goes on with other numbers of ranks, and other ZeRO stages, twice",
    expected="the same samples and paths; losses within 1e-5 of an uninterrupted run",
    tier="P",
)
def change_ranks(folder: Path, is_thorough: bool, part: str | None = None) -> Finding:
    """Goes on with other numbers of ranks and other stages than before."""
    names = list(ROUTES) if is_thorough else ["2-1-4 ranks, stages 3-0-2"]
    figures, is_right, num_starts = [], True, 0
    for without_dropout in (True, False) if is_thorough else (True,):
        options = {"without_dropout": without_dropout, "without": part}
        base = folder / f"whole-{without_dropout}"
        run_ranks("one_run", 2, base, {"stage": 1, **options})
        for name in names:
            place = folder / f"{name}-{without_dropout}"
            drive(place, ROUTES[name], options)
            num_starts += len(ROUTES[name]) - 1
            largest, is_same = compare(base / "run", place / "run")
            is_right = is_right and is_same and largest <= TOLERANCE
            words = "" if without_dropout else " with dropout"
            words += "" if is_same else ", OTHER SAMPLES OR PATHS"
            figures.append(f"{name}{words}: {largest:.1e}")
    return Finding(is_right, "max abs loss difference: " + "; ".join(figures), num_starts)


def drive(folder: Path, route: list[tuple[int, dict[str, Any]]], options: dict[str, Any]) -> None:
    """Makes the starts of a route; all but the last are stopped on the way."""
    for number, (num_ranks, cell) in enumerate(route):
        is_last = number == len(route) - 1
        stop_at = None if is_last else STEPS * (number + 1) // len(route)
        run_ranks("one_run", num_ranks, folder, {**cell, "stop_at": stop_at, **options})


def compare(expected: Path, found: Path) -> tuple[float, bool]:
    """Returns the largest difference of a loss, and whether samples and paths are the same."""
    lines = [oracle(place) for place in (expected, found)]
    samples = [[line for line in part if line.startswith("samples")] for part in lines]
    rows = [sorted(losses_of(part)) for part in lines]
    is_same = samples[0] == samples[1] and len(rows[0]) == len(rows[1]) == STEPS
    differences = []
    for (step, path, loss), other in zip(*rows, strict=False):
        is_same = is_same and other[:2] == (step, path)
        differences.append(abs(loss - other[2]))
    return max(differences), is_same


def losses_of(lines: list[str]) -> list[tuple[int, str, float]]:
    """Returns step, path and loss of every training line."""
    rows = [json.loads(line) for line in lines if not line.startswith("samples")]
    rows = [entry for entry in rows if entry["kind"] == "train"]
    return [(entry["step"], entry["path"], float.fromhex(entry["loss"])) for entry in rows]


mutant("B3", "a rank takes the shard of its number")(without(change_ranks, "cutting anew"))
mutant("B3", "moments are lost in cutting anew")(without(change_ranks, "moments"))


@peer("B3", "raw DeepSpeed")
def deepspeed_changes_ranks(folder: Path) -> str:
    """Goes on with one rank where two have saved."""
    ask_peer("deepspeed_goes_on", 2, folder)
    return "2-1 ranks: " + str(ask_peer("deepspeed_goes_on", 1, folder)[0])


# --- B4 ---------------------------------------------------------------------------------------

# What is changed -> words of the refusal.
REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "rate": ({"learning_rate": 1e-3}, "optimizer.learning_rate: 0.005 -> 0.001"),
    "seed": ({"training": {"seed": 5}}, "training.seed: 0 -> 5"),
    "space": ({"num_layers": 4}, "space: "),
    "data or tokenizer": ({"data": "other"}, "data: toy -> other"),
    "batch": ({"training": {"rows_per_step": 32}}, "training.rows_per_step: 16 -> 32"),
    "length": ({"training": {"num_steps": 30}}, "training.num_steps: 20 -> 30"),
    "precision": ({"precision": "bf16"}, "training.precision: fp32 -> bf16"),
}
ACCEPTED: list[dict[str, Any]] = [
    {"stage": 2, "stop_at": 6},
    {"stage": 0, "stop_at": 7},
    {**OFFLOAD, "stop_at": 8},
    {"training": {"keep_checkpoints": 3, "checkpoint_every": 4}, "stop_at": 9},
    {"training": {"evaluate_every": 7, "num_eval_batches": 2, "max_minutes": 30.0}, "stop_at": 10},
]


@row(
    "B4",
    fault="rate, seed, space, data, batch, length or precision changed between save and resume; "
    "a number of ranks that does not divide the batch",
    expected="refused with the key that differs; ZeRO stage and logging may change",
    tier="P",
)
def change_configuration(folder: Path, is_thorough: bool, part: str | None = None) -> Finding:
    """Goes on with a changed configuration, of every kind in turn."""
    changes = [{"stage": 1, **change} for change, _ in REFUSED.values()]
    accepted = [{"stage": 1, **change} for change in ACCEPTED]
    arguments = {
        "starts": [{"stage": 1, "stop_at": 5}, *changes, *accepted],
        "without": part,
    }
    first, *endings = run_ranks("starts", 2, folder, arguments)[0]
    assert first == "interrupted", first
    refusals, others = endings[: len(changes)], endings[len(changes) :]
    # 16 rows in micro-batches of 2 do not divide over 3 ranks.
    refusals += run_ranks("starts", 3, folder, {"starts": [{"stage": 1}], "without": part})[0]
    words = [*(text for _, text in REFUSED.values()), "rows_per_step: 16 is not a multiple"]
    silent = sum(text in ("finished", "interrupted") for text in refusals)
    named = sum(word in text for word, text in zip(words, refusals, strict=True))
    went_on = others.count("interrupted")
    figure = f"{len(words)} changes refused by name, {silent} silent accepts; "
    figure += f"{went_on} of {len(accepted)} allowed changes went on"
    is_right = named == len(words) and silent == 0 and went_on == len(accepted)
    return Finding(is_right, figure if is_right else f"{figure}: {endings}", len(changes) + 1)


mutant("B4", "checkpoints of any configuration are taken")(
    without(change_configuration, "identity")
)
