"""A study of toy models whose steps are made together: rows, stops, and units that diverge."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from toy_study import SETTING, ToyStudyTenant, after, never, open_toys, toy_units
from toy_tenant import ToyBatch, ToySource

from magicbert.errors import UserError
from magicbert.study.rows import Row
from magicbert.study.stacked_pieces import StackRows
from magicbert.study.trials import Trials
from magicbert.study.units import AloneUnit, Stack, SupernetUnit, Unit, jobs_of
from magicbert.study.workers import Crew

UNITS = [unit for unit in toy_units(num_seeds=2) if isinstance(unit, AloneUnit)]
SUPERNETS = [unit for unit in toy_units() if isinstance(unit, SupernetUnit)]


def done(result: Any) -> dict[str, Row]:
    """Rows by key, without their time."""
    assert isinstance(result, StackRows)
    assert result.is_over
    return {
        unit.key: {name: value for name, value in row.items() if name != "seconds"}
        for unit, row in result.rows
    }


def assert_alike(one: Row, other: Row) -> None:
    """The rows say the same up to rounding; how they were made is not compared."""
    how = {"seconds", "stacked"}
    rounded = {"loss", "accuracy", "curve", "scores", "interference"} & one.keys()
    exact = one.keys() - how - rounded
    assert exact | rounded == other.keys() - how
    assert {name: one[name] for name in exact} == {name: other[name] for name in exact}
    for name in sorted(rounded):
        assert numbers(one[name]) == pytest.approx(numbers(other[name]), rel=0, abs=1e-5)


def numbers(value: Any) -> list[float]:
    """Every number of a row's value, whatever its form."""
    if isinstance(value, dict):
        value = list(value.values())
    return [n for part in value for n in numbers(part)] if isinstance(value, list) else [value]


def test_stacks_hold_units_of_one_kind_and_number_of_steps_in_their_order() -> None:
    units = toy_units(num_seeds=2, long_steps=9, num_long=2)
    jobs = jobs_of(units, 4)
    alone = [unit for unit in units if isinstance(unit, AloneUnit)]
    short, long = ([u for u in alone if u.budget == budget] for budget in ("short", "long"))
    supernets = [unit for unit in units if isinstance(unit, SupernetUnit)]
    assert (len(short), len(long), len(supernets)) == (6, 4, 3)
    plain, aligned = supernets[:2], supernets[2]
    assert {job.units for job in jobs if isinstance(job, Stack)} == {
        tuple(short[:4]), tuple(short[4:]), tuple(long), tuple(plain),
    }  # fmt: skip
    assert aligned in jobs, "what runs anchors has stacks of its own"
    assert jobs[0] == Stack(tuple(short[:4])), "a stack stands where its first unit stood"
    assert jobs_of(units, 1) == units
    assert jobs_of(short[:5], 4)[1] == short[4], "one model is no stack"
    fewer = [replace(unit, num_steps=11) for unit in supernets[:1]]
    assert jobs_of([*plain, *fewer], 4) == [Stack(tuple(plain)), *fewer]


def test_rows_of_a_stack_are_those_of_single_models(tmp_path: Path) -> None:
    trials = open_toys(0, SETTING, tmp_path)
    rows = done(trials(Stack(tuple(UNITS)), never))
    assert list(rows) == [unit.key for unit in UNITS]
    for unit in UNITS:
        single = trials(unit, never)
        assert isinstance(single, dict)
        assert_alike(rows[unit.key], single)
        assert rows[unit.key]["stacked"] == 6
        assert "stacked" not in single
    assert not list(tmp_path.iterdir()), "a stack that was not cut leaves nothing"


def test_rows_of_stacked_supernets_are_those_of_single_ones(tmp_path: Path) -> None:
    trials = open_toys(0, SETTING, tmp_path)
    rows = done(trials(Stack(tuple(SUPERNETS)), never))
    assert [row["method"] for row in rows.values()] == ["spos", "strict-fair", "magic-at"]
    for unit in SUPERNETS:
        single = trials(unit, never)
        assert isinstance(single, dict)
        assert_alike(rows[unit.key], single)
        assert rows[unit.key]["stacked"] == 3


@pytest.mark.parametrize("number", [7, 12, 13])
def test_a_stack_of_supernets_is_cut_in_training_or_between_scores(
    tmp_path: Path, number: int
) -> None:
    """It makes 12 steps, then scores one supernet after the other."""
    stack = Stack(tuple(SUPERNETS))
    whole = done(open_toys(0, SETTING, tmp_path / "whole")(stack, never))
    first = open_toys(0, SETTING, tmp_path)(stack, after(number))
    assert isinstance(first, StackRows)
    assert not first.is_over
    assert len(first.rows) == max(number - 12, 0)
    assert len(list(tmp_path.glob("pieces/*/state.pt"))) == 3
    rest = open_toys(0, SETTING, tmp_path)(stack, never)
    assert done(rest) == whole


@pytest.mark.parametrize("number", [0, 1, 4])
def test_a_stack_cut_in_the_middle_gives_the_rows_of_an_uncut_one(
    tmp_path: Path, number: int
) -> None:
    stack = Stack(tuple(UNITS[:3]))
    whole = done(open_toys(0, SETTING, tmp_path / "whole")(stack, never))
    first = open_toys(0, SETTING, tmp_path)(stack, after(number))
    assert first == StackRows((), is_over=False)
    assert len(list(tmp_path.glob("pieces/*/state.pt"))) == (3 if number else 0)
    assert done(open_toys(0, SETTING, tmp_path)(stack, never)) == whole


def test_other_stacks_and_single_trainings_go_on_with_a_cut_one(tmp_path: Path) -> None:
    whole = done(open_toys(0, SETTING, tmp_path / "whole")(Stack(tuple(UNITS)), never))
    open_toys(0, SETTING, tmp_path)(Stack(tuple(UNITS[:3])), after(4))
    trials = open_toys(0, SETTING, tmp_path)
    single = trials(UNITS[0], never)
    assert isinstance(single, dict)
    assert_alike(whole[UNITS[0].key], single)
    # Two have made four steps, two none: they go on in stacks of their own.
    rows = done(trials(Stack(tuple(UNITS[1:5])), never))
    assert [row["stacked"] for row in rows.values()] == [2, 2, 2, 2]
    assert list(rows) == [unit.key for unit in UNITS[1:5]]
    for unit in UNITS[1:5]:
        assert_alike(rows[unit.key], whole[unit.key])


class Poisoned(ToySource):
    """Has an input that is not a number, in one step."""

    def step_batches(self, step: int, rank: int, num_ranks: int) -> list[ToyBatch]:
        batches = super().step_batches(step, rank, num_ranks)
        return [replace(b, inputs=b.inputs * math.nan) if step == 3 else b for b in batches]


class PoisonedTenant(ToyStudyTenant):
    def source(self, seed: int) -> ToySource:
        return Poisoned(8, seed=seed) if seed == 1 else super().source(seed)


def open_poisoned(worker: int, folder: Path) -> Trials:
    return replace(open_toys(worker, SETTING, folder), tenant=PoisonedTenant())


@pytest.mark.parametrize("num_workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_model_that_diverges_takes_no_other_row_with_it(tmp_path: Path, num_workers: int) -> None:
    rows: dict[str, Row] = {}

    def take(unit: Unit, row: Row) -> None:
        rows[unit.key] = row

    crew = Crew(open_poisoned, (tmp_path,), num_workers, never)
    with pytest.raises(UserError, match=r"seed1: the loss is nan at step 4; the training diverged"):
        crew.do(jobs_of(UNITS, 4), take)
    # Of two workers the first to end stops the other between two steps.
    first, second = (
        {unit.key for unit in units if unit.seed == 0} for units in (UNITS[:4], UNITS[4:])
    )
    assert (
        rows.keys() == first if num_workers == 1 else rows.keys() in (first, second, first | second)
    )
    trials = open_toys(0, SETTING, tmp_path / "clean")
    clean = done(trials(Stack(tuple(UNITS)), never))
    for key, row in rows.items():
        assert_alike(row, clean[key])


def test_the_models_of_a_stack_are_kept_for_fine_tuning(tmp_path: Path) -> None:
    kept = [replace(unit, is_kept=True) for unit in UNITS[:2]]
    trials = open_toys(0, SETTING, tmp_path)
    trials(Stack((*kept, *UNITS[2:4])), never)
    assert len(list((tmp_path / "models").iterdir())) == 2
    for unit in kept:
        weights = torch.load(trials.model_folder(unit) / "weights", weights_only=True)
        alone = open_toys(0, SETTING, tmp_path / "alone")
        alone(unit, never)
        wanted = torch.load(alone.model_folder(unit) / "weights", weights_only=True)
        torch.testing.assert_close(weights, wanted, rtol=0, atol=1e-5)
