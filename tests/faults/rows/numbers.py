"""Rows E1 to E4: numbers that are not finite, spikes, and a bit that flips in memory."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from matrix import Finding, mutant, peer, row
from raw_trainer import logged_figure
from toy_tenant import OPERATORS
from toy_trials import endings, firings, run, saved_numbers_are_finite, steps_made

from magicbert.trail import read_metrics

DIVERGED, DISAGREED = 77, 76
KINDS = ("bad_input=1:5:5:nan", "bad_input=0:5:5:inf", "bad_gradient=1:5")


def training(**values: Any) -> dict[str, dict[str, Any]]:
    return {"training": {"checkpoint_every": 4, "keep_checkpoints": 9, **values}}


def is_skipped_alike(folder: Path, kind: str, stage: int, precision: str, *mutants: str) -> Any:
    """Returns whether one bad step was skipped on all ranks, told, and not logged as 0."""
    config = training(zero_stage=stage, precision=precision)
    codes, trial = run(folder, kind, *mutants, config=config)
    rows = read_metrics(folder / "stage")
    told = [r for r in rows if r["kind"] == "anomaly" and r["step"] == 5]
    (loss,) = [r["loss"] for r in rows if r["kind"] == "train" and r["step"] == 6] or [0.0]
    ends = endings(trial)
    is_alike = len(ends) == 2 and len(set(ends)) == 1 and ends[0].endswith("True")
    is_null = loss is None or kind.startswith("bad_gradient")
    passed = codes == [0, 0] and bool(told) and is_null and is_alike
    return passed and saved_numbers_are_finite(trial), trial


@row(
    "E1",
    fault="NaN or infinity in a batch or in one element of a gradient, on one rank; in a weight",
    expected="skipped on all ranks, logged as such and never as 0; nothing non-finite is saved",
    tier="N",
)
def one_bad_step(folder: Path, is_thorough: bool) -> Finding:
    cells = [
        (kind, stage, precision)
        for kind in KINDS
        for stage, precision in ((0, "fp32"), (1, "bf16"), (2, "fp32"), (3, "bf16"))
    ]
    results = [
        is_skipped_alike(folder / f"{number}", *cell)
        for number, cell in enumerate(cells if is_thorough else cells[:1])
    ]
    trials = [trial for _, trial in results]
    codes, trial = run(folder / "weight", "bad_weight=1:5", config=training())
    is_refused = codes == [DIVERGED, DIVERGED] and saved_numbers_are_finite(trial)
    is_refused &= "not saved, fp32 weights are not finite" in trial.log()
    trials.append(trial)
    good = sum(passed for passed, _ in results)
    figure = (
        f"{good} of {len(results)} cells skipped alike, a bad weight "
        f"{'not saved' if is_refused else 'saved'}; 0 ranks disagree"
    )
    return Finding(good == len(results) and is_refused, figure, firings(trials))


@peer("E1", "HF Trainer")
def trainer(folder: Path) -> str:
    return logged_figure(folder)


@mutant("E1", "bad gradients are applied")
def applied(folder: Path, is_thorough: bool) -> Finding:
    passed, trial = is_skipped_alike(folder, KINDS[2], 0, "fp32", "no_skip=")
    return Finding(passed, "", firings([trial]))


def is_operator_named(folder: Path) -> tuple[bool, Any]:
    """Returns whether a weight that is not finite is found by layer and operator."""
    config = {"training": {"max_skips_in_a_row": 1, "num_steps": 40}}
    codes, trial = run(folder, "bad_weight=1:5", config=config)
    files = sorted((folder / "stage").glob("anomaly-step-*.json"))
    views = json.loads(files[0].read_text())["ranks"] if files else [{}, {}]
    named = [view for view in views if view.get("layer") == 0 and view["operator"] in OPERATORS]
    return codes == [DIVERGED] * 2 and bool(named) and named[0]["first"] in trial.log(0), trial


def endless(folder: Path, *mutants: str) -> Finding:
    config = training(max_skips_in_a_row=4, num_steps=16)
    codes, trial = run(folder, "bad_input=1:6:99:nan", *mutants, config=config)
    files = sorted((folder / "stage").glob("anomaly-step-*.json"))
    record = json.loads(files[0].read_text()) if files else {}
    bad = [view for view in record.get("ranks", []) if view["first"]]
    is_named = bool(bad) and record["path"] and bad[0]["sample_ids"]
    made = steps_made(trial) - 6
    passed = codes == [DIVERGED] * 2 and made == 4 and bool(is_named)
    passed = passed and saved_numbers_are_finite(trial)
    where = bad[0]["first"] if bad else "nothing"
    is_found, other = is_operator_named(folder / "weight") if not mutants else (True, trial)
    figure = f"stopped after {made} bad steps of 4 allowed; named: {where}"
    return Finding(passed and is_found, figure, firings([trial, other]))


@row(
    "E2",
    fault="NaN in every step from one on",
    expected="stopped when the budget is used up; layer or tensor, path and samples written down",
    tier="P",
)
def endless_nan(folder: Path, is_thorough: bool) -> Finding:
    return endless(folder)


@mutant("E2", "no budget")
def unlimited(folder: Path, is_thorough: bool) -> Finding:
    return endless(folder, "no_budget=")


def spike(folder: Path, policy: str, *mutants: str) -> tuple[bool, Any]:
    config = training(num_steps=40, on_spike=policy)
    codes, trial = run(folder, "spiking_loss=1:32", *mutants, config=config)
    rows = read_metrics(folder / "stage")
    kinds = [r["anomaly"] for r in rows if r["kind"] == "anomaly" and r["step"] == 32]
    wanted = {"log": ["spike"], "skip": ["skipped"], "stop": ["spike"]}[policy]
    ended = [DIVERGED] * 2 if policy == "stop" else [0, 0]
    return kinds == wanted and codes == ended, trial


@row(
    "E3",
    fault="one rank's loss times 100 in one step",
    expected="named as a spike; logged, skipped or the end, as configured",
    tier="N",
)
def spikes(folder: Path, is_thorough: bool) -> Finding:
    results = [spike(folder / policy, policy) for policy in ("log", "skip", "stop")]
    good = sum(passed for passed, _ in results)
    return Finding(good == 3, f"{good} of 3 policies kept", firings(t for _, t in results))


@mutant("E3", "no loss is a spike")
def unseen(folder: Path, is_thorough: bool) -> Finding:
    passed, trial = spike(folder, "log", "no_spikes=")
    return Finding(passed, "", firings([trial]))


def flip(
    folder: Path, stage: int, precision: str, num_ranks: int, *mutants: str
) -> tuple[bool, Any]:
    config = training(
        zero_stage=stage, precision=precision, check_replicas_every=4, rows_per_step=8 * num_ranks
    )
    codes, trial = run(folder, "flipped_bit=1:6", *mutants, config=config, num_ranks=num_ranks)
    log = trial.log()
    is_named = "rank 1: " in log and "rank 0: " not in log and "inner.weight" in log
    return codes == [DISAGREED] * num_ranks and is_named and "before step 8" in log, trial


@row(
    "E4",
    fault="a bit flips in one rank's copy of a weight",
    expected="found at the next comparison of replicas; rank and parameter named",
    tier="N",
)
def flips(folder: Path, is_thorough: bool) -> Finding:
    # At stage 0 in fp32 the weights are their own masters: a third rank tells who is wrong.
    cells = [(0, "fp32", 3), (1, "bf16", 2), (2, "fp32", 2)]
    results = [flip(folder / str(cell[0]), *cell) for cell in cells]
    good = sum(passed for passed, _ in results)
    figure = f"{good} of {len(cells)} stages: found within the interval (4 steps), rank named"
    return Finding(good == len(cells), figure, firings(t for _, t in results))


@mutant("E4", "replicas are not compared")
def uncompared(folder: Path, is_thorough: bool) -> Finding:
    passed, trial = flip(folder, 1, "bf16", 2, "no_replicas=")
    return Finding(passed, "", firings([trial]))
