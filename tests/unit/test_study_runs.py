"""A study of toy models: rows, pieces, processes, and every way in which it can be stopped."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from toy_study import (
    SETTING,
    SPACE,
    TABLE,
    ToyStudyTenant,
    after,
    never,
    open_broken,
    open_failing,
    open_toys,
    toy_units,
)

from magicbert.config.sections import DownstreamSection
from magicbert.errors import UserError
from magicbert.study.methods import alignment_of, sampling_of
from magicbert.study.rows import Row
from magicbert.study.units import AloneUnit, SupernetUnit, Unit
from magicbert.study.workers import Crew, UnitError, deadline
from magicbert.supernet.scoring import score


def without_clock(row: Row | None) -> Row:
    assert row is not None
    return {name: value for name, value in row.items() if name != "seconds"}


def collected(crew: Crew, units: list[Unit]) -> tuple[dict[str, Row], bool]:
    rows: dict[str, Row] = {}
    finished = crew.do(units, lambda unit, row: rows.update({unit.key: without_clock(row)}))
    return rows, finished


def test_a_row_says_what_was_trained_and_what_it_cost(tmp_path: Path) -> None:
    trials = open_toys(0, SETTING, tmp_path)
    row = without_clock(trials(AloneUnit(TABLE[1], 5, "short", 6), never))
    assert {name: row[name] for name in ("kind", "architecture", "seed", "budget", "steps")} == {
        "kind": "alone", "architecture": "middle-middle", "seed": 5, "budget": "short", "steps": 6,
    }  # fmt: skip
    assert (row["parameters"], row["flops"]) == (100, 4)
    assert row["training_flops"] == 6 * 8 * 3 * 5.0
    assert [step for step, _ in row["curve"]] == [2, 4, 6]
    assert row["curve"][-1][1] == row["loss"] > 0
    assert 0 <= row["accuracy"] <= 1
    assert not list(tmp_path.iterdir()), "a unit that was not cut leaves nothing"


def test_scores_of_a_supernet_are_those_of_scoring(tmp_path: Path) -> None:
    """Trained once more by hand, step by step, and scored path by path."""
    trials = open_toys(0, SETTING, tmp_path)
    entry = SETTING.supernets[2]
    row = without_clock(trials(SupernetUnit(entry, 3, 12), never))
    training = trials.training(
        SPACE, 3, 12, sampling_of(entry), alignment_of(entry), SETTING.optimizer
    )
    for _ in range(12):
        training.advance()
    tenant = ToyStudyTenant()
    losses = {
        str(path): score(training.supernet, tenant.objective, tenant.dev_batches(), path).loss
        for path in TABLE
    }
    assert row["scores"] == losses
    assert row["loss"] == pytest.approx(sum(losses.values()) / 3, abs=1e-12)
    assert (row["flops"], row["anchors"]) == (training.standing.flops, training.standing.replaced)
    assert row["flops"] > 12 * 8 * 3 * 3.0
    assert row["interference"]["num_pairs"] == 16
    assert -1 <= row["interference"]["cosine"] <= 1


@pytest.mark.parametrize("number", [0, 1, 5, 11, 12])
@pytest.mark.parametrize("kind", ["alone", "magic-at"])
def test_a_unit_cut_in_the_middle_gives_the_row_of_an_uncut_one(
    tmp_path: Path, number: int, kind: str
) -> None:
    unit = next(unit for unit in toy_units(short_steps=12) if kind in unit.key)
    whole = without_clock(open_toys(0, SETTING, tmp_path / "whole")(unit, never))
    first = open_toys(0, SETTING, tmp_path)(unit, after(number))
    if kind == "alone" and number >= 12:
        assert first is not None, "a training that is through needs no other piece"
        return
    assert first is None
    again = open_toys(0, SETTING, tmp_path)(unit, never)
    assert without_clock(again) == whole
    assert again is not None
    assert again["seconds"] > 0


def test_a_damaged_state_is_the_users_to_delete(tmp_path: Path) -> None:
    unit = toy_units()[0]
    assert open_toys(0, SETTING, tmp_path)(unit, after(3)) is None
    (state,) = tmp_path.glob("pieces/*/state.pt")
    state.write_bytes(b"torn")
    with pytest.raises(UserError, match=r"state\.pt: no state of this training"):
        open_toys(0, SETTING, tmp_path)(unit, never)


def test_a_kept_model_is_fine_tuned_and_trained_again_if_it_is_gone(tmp_path: Path) -> None:
    units = toy_units(downstream=DownstreamSection(tasks=("any",), num_architectures=1))
    (kept,) = (unit for unit in units if isinstance(unit, AloneUnit) and unit.is_kept)
    trials, last = open_toys(0, SETTING, tmp_path / "a"), units[-1]
    assert trials(kept, never) is not None
    (model,) = (tmp_path / "a" / "models").iterdir()
    row = without_clock(trials(last, never))
    again = without_clock(open_toys(0, SETTING, tmp_path / "b")(last, never))
    assert model.is_dir()
    assert row == again
    assert row["architecture"] == str(kept.architecture)
    assert (row["task"], row["metric"]) == ("any", "sum")
    assert math.isfinite(row["score"])


def test_two_workers_give_the_rows_of_one(tmp_path: Path) -> None:
    units = toy_units(num_seeds=2)
    one, finished = collected(Crew(open_toys, (SETTING, tmp_path), 1, never), units)
    two, also = collected(Crew(open_toys, (SETTING, tmp_path), 2, never), units)
    assert finished
    assert also
    assert one == two
    assert set(one) == {unit.key for unit in units}


def test_one_worker_trains_on_one_thread_and_gives_the_others_back(tmp_path: Path) -> None:
    before, seen = torch.get_num_threads(), []
    torch.set_num_threads(2)
    try:
        crew = Crew(open_toys, (SETTING, tmp_path), 1, never)
        crew.do(toy_units()[:1], lambda *_: seen.append(torch.get_num_threads()))
        assert (seen, torch.get_num_threads()) == ([1], 2)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("num_workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_unit_that_fails_stops_the_study_and_keeps_what_is_done(
    tmp_path: Path, num_workers: int
) -> None:
    units = toy_units(num_seeds=2)
    crew = Crew(open_failing, (SETTING, tmp_path, units[3].key), num_workers, never)
    rows: dict[str, Row] = {}
    with pytest.raises(UnitError) as caught:
        crew.do(units, lambda unit, row: rows.update({unit.key: row}))
    assert caught.value.key == units[3].key
    assert caught.value.summary == "ZeroDivisionError: a bug"
    assert 'raise ZeroDivisionError("a bug")' in caught.value.trace
    # The fourth began when all but those of the other workers were done.
    assert len(set(rows) & {unit.key for unit in units[:3]}) >= 4 - num_workers
    assert len(rows) < len(units) - 1


@pytest.mark.slow
def test_a_worker_that_cannot_begin_says_why() -> None:
    with pytest.raises(UnitError, match="the data went away"):
        Crew(open_broken, (), 2, never).do(toy_units()[:2], lambda *_: None)


@pytest.mark.parametrize(
    "error", [KeyboardInterrupt, pytest.param(OSError, marks=pytest.mark.slow)]
)
def test_an_interruption_ends_the_workers_and_keeps_what_is_done(
    tmp_path: Path, error: type[BaseException]
) -> None:
    """Raised where a signal or a full disk would be: in this process, while workers train."""
    rows: list[str] = []

    def take(unit: Unit, row: Row) -> None:
        rows.append(unit.key)
        if len(rows) == 1:
            raise error

    units = toy_units(short_steps=4000, num_seeds=2)
    with pytest.raises(error):
        Crew(open_toys, (SETTING, tmp_path), 2, never).do(units, take)
    assert 1 <= len(rows) <= 3
    # The other worker kept the state of the unit that it was in.
    states = list(tmp_path.glob("pieces/*/state.pt"))
    assert len(states) + len(rows) >= 2


def test_time_that_is_up_cuts_the_running_unit_and_begins_no_other(tmp_path: Path) -> None:
    units = toy_units()
    rows, finished = collected(Crew(open_toys, (SETTING, tmp_path), 1, after(9)), units)
    assert not finished
    # One question before a unit and one ahead of each of its 6 steps, until it is through.
    assert list(rows) == [units[0].key]
    assert len(list(tmp_path.glob("pieces/*/state.pt"))) == 1
    rest, finished = collected(Crew(open_toys, (SETTING, tmp_path), 1, never), units[1:])
    whole, _ = collected(Crew(open_toys, (SETTING, tmp_path / "new"), 1, never), units)
    assert finished
    assert {**rows, **rest} == whole


def test_a_deadline_of_zero_is_none() -> None:
    assert not deadline(0.0)()
    assert deadline(1e-9)()
    assert not deadline(10.0)()


def test_a_diverged_training_is_named(tmp_path: Path) -> None:
    wild = replace(SETTING, optimizer=replace(SETTING.optimizer, learning_rate=10.0, clip_norm=0.0))
    unit = AloneUnit(TABLE[2], 0, "short", 300)

    class Exploding(ToyStudyTenant):
        def build(self, space: Any, seed: int) -> Any:
            supernet = super().build(space, seed)
            with torch.no_grad():
                supernet.head.weight.fill_(math.inf)  # type: ignore[union-attr, operator]
            return supernet

    trials = replace(open_toys(0, wild, tmp_path), tenant=Exploding())
    with pytest.raises(UserError, match=r"alone/large-large/short/.* the training diverged"):
        trials(unit, never)
