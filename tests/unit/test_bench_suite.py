"""What all lists of cases share: judging, turns, the record that goes on, the tables."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch

from magicbert.bench import measuring, suite_record
from magicbert.bench.instruments import ProcessorClock
from magicbert.bench.measuring import measure
from magicbert.bench.registry import (
    OWN,
    AbsentError,
    Call,
    Case,
    Floor,
    Lineup,
    Trial,
    Verdict,
)
from magicbert.bench.suite import Suite, open_suite_record, record_file, run_suite
from magicbert.bench.suite_table import markdown, si, tables, time_text
from magicbert.bench.turns import Pace, take_turns
from magicbert.config.roots import BenchConfig
from magicbert.config.sections import MeasureSection, RunSection
from magicbert.errors import UserError
from magicbert.records import read_record

CPU = torch.device("cpu")
PACE = Pace(rounds=3, turn_seconds=0.0)
ERRORS = {OWN: 0.5, "eager": 1.0, "wrong": 3.0, "nan": float("nan")}


def absent() -> Call:
    raise AbsentError("not installed")


def trial(names: tuple[str, ...] = (OWN, "eager"), floor: Floor | None = None) -> Trial:
    lineup = Lineup()
    for name in names:
        lineup.add(name, absent if name == "away" else lambda: lambda index: index)

    def judge(contender: Any) -> Verdict:
        if contender.name == "broken":
            raise RuntimeError("cannot compile\nat line 3")
        return Verdict(ERRORS[contender.name], 2.0)

    return Trial(lineup, judge, floor or Floor(), units=1000, num_sets=2, facts={"launches": 2})


def case(name: str = "sum", build: Callable[..., Trial] = lambda device: trial()) -> Case:
    return Case(name, {"tokens": 8}, build)


class KnownTimes:
    """An instrument whose answers are known: seconds by contender, slower in each round."""

    modes = ("known",)

    def __init__(self, seconds: dict[str, float]) -> None:
        self.seconds_of = seconds
        self.log: list[str] = []

    def ready(self, contender: Any, num_sets: int) -> Any:
        if contender.name == "no graph":
            raise AbsentError("no graph: it waits for the host")

        def call(index: int) -> str:
            return contender.name

        return call

    def seconds(self, call: Any, num_calls: int) -> dict[str, float]:
        name = call(0)
        self.log.append(name)
        return {"known": self.seconds_of[name] * self.log.count(name)}


def test_only_right_answers_are_timed_and_the_others_are_named():
    names = (OWN, "eager", "wrong", "nan", "broken", "away")
    row = measure(case(build=lambda device: trial(names)), CPU, PACE)
    assert set(row["modes"]["cpu"]["microseconds"]) == {OWN, "eager"}
    assert set(row["modes"]["cpu"]["peer_over_own"]) == {"eager"}
    assert row["absent"] == {"away": "not installed"}
    assert row["failed"]["broken"] == "RuntimeError: cannot compile"
    assert row["failed"]["wrong"] == "wrong: error 3, allowed 2"
    assert row["failed"]["nan"].startswith("wrong")


def test_floors_bring_their_ceilings_into_the_turns():
    floor = Floor(bytes=1 << 20, flops=1 << 20, matmul=(8, 16, 4))
    row = measure(case(build=lambda device: trial(floor=floor)), CPU, PACE)
    figures = row["modes"]["cpu"]
    assert {"copy", "matmul"} < set(figures["microseconds"])
    assert set(figures["rates"]) == {"copy", "matmul"}
    assert set(figures["percent_of_floor"]) == {OWN, "eager"}


def test_ratios_and_shares_are_taken_round_by_round(monkeypatch):
    """Copying 128 MiB takes 1 s here, so the 64 MiB of this work take half of one: 25% of 2 s."""
    clock = KnownTimes({OWN: 2.0, "eager": 3.0, "copy": 1.0})
    monkeypatch.setattr(measuring, "instruments", lambda device: [clock])
    floor = Floor(bytes=1 << 26)
    row = measure(case(build=lambda device: trial(floor=floor)), CPU, PACE)
    figures = row["modes"]["known"]
    assert figures["peer_over_own"]["eager"] == {"median": 1.5, "low": 1.5, "high": 1.5}
    assert figures["percent_of_floor"][OWN]["median"] == 25
    assert figures["microseconds"][OWN]["high"] > figures["microseconds"][OWN]["low"]


def test_the_order_moves_on_and_a_mode_without_a_contender_says_why():
    clock = KnownTimes({OWN: 1.0, "eager": 1.0, "compile": 1.0})
    contenders = trial((OWN, "eager")).lineup.contenders
    more = [dataclasses.replace(contenders[0], name=name) for name in ("compile", "no graph")]
    turns = take_turns([*contenders, *more], clock, PACE, 1)
    own, eager, compiled = OWN, "eager", "compile"
    calibration, rounds = clock.log[:3], [clock.log[i : i + 3] for i in (3, 6, 9)]
    assert calibration == [own, eager, compiled]
    assert rounds == [[own, eager, compiled], [eager, compiled, own], [compiled, own, eager]]
    assert turns.failed["known"]["no graph"].startswith("no graph")


def test_processor_time_is_that_of_one_call():
    times = ProcessorClock().seconds(lambda index: sum(range(20_000)), 4)
    assert set(times) == {"cpu", "wall"}
    assert 0 < times["cpu"] < 1


def suite_of(*cases: Case, seconds: float = 100.0, rounds: int = 2) -> Suite:
    pace = MeasureSection(device="cpu", rounds=rounds, seconds=seconds)
    return Suite("kernels", cases, CPU, pace, {"seed": 0})


def test_a_cut_run_goes_on_and_other_code_starts_anew(tmp_path, monkeypatch):
    config = BenchConfig(run=RunSection(root=str(tmp_path)))
    cases = [case(name) for name in ("first", "second", "third")]
    short = suite_of(*cases, seconds=0.0)
    assert [row["case"] for row in run_suite(short, config)["rows"]] == ["first"]
    assert [row["case"] for row in run_suite(short, config)["rows"]] == ["first", "second"]
    record = run_suite(suite_of(*cases), config)
    assert [row["case"] for row in record["rows"]] == ["first", "second", "third"]
    assert read_record(record_file(short, config), suite_record.SCHEMA)["rows"] == record["rows"]
    assert open_suite_record(suite_of(*cases, rounds=5), config)["rows"] == []
    monkeypatch.setattr(suite_record, "sources_digest", lambda: "other")
    assert open_suite_record(short, config)["rows"] == []


def test_a_wrong_answer_of_its_own_is_an_error_after_the_others_were_measured(tmp_path):
    config = BenchConfig(run=RunSection(root=str(tmp_path)))
    lineup = Lineup()
    lineup.add(OWN, lambda: lambda index: index)
    wrong = dataclasses.replace(trial(), lineup=lineup, judge=lambda contender: Verdict(9.0, 2.0))
    cases = case("bad", lambda device: wrong), case("good")
    with pytest.raises(UserError, match=r"bad .*wrong: error 9"):
        run_suite(suite_of(*cases), config)
    rows = open_suite_record(suite_of(*cases), config)["rows"]
    assert [row["case"] for row in rows] == ["bad", "good"]


def test_tables_show_times_ratios_and_who_is_absent(tmp_path):
    config = BenchConfig(run=RunSection(root=str(tmp_path)))
    names = (OWN, "eager", "wrong", "away")
    record = run_suite(suite_of(case("sum", lambda device: trial(names)), case("norm")), config)
    first, second = tables(record)
    assert (first.title, second.title) == ("sum", "norm")
    assert first.head == ("tokens", "by", "time", "B/s", "launches", "eager", "wrong", "away")
    cells = dict(zip(first.head, first.lines[0], strict=True))
    assert len(first.lines) == 1
    assert (cells["tokens"], cells["by"], cells["launches"]) == ("8", "cpu", "2")
    assert (cells["wrong"], cells["away"]) == ("absent", "absent")
    assert " to " in cells["eager"]
    text = markdown(record)
    assert "away (not installed)" in text
    assert "wrong (wrong: error 3, allowed 2)" in text
    assert "### Norm" in text


@pytest.mark.parametrize(
    ("function", "value", "text"),
    [
        (si, 1.234e9, "1.23 G"), (si, 12.0, "12"), (si, 0.5, "0.5"), (si, 4.3e12, "4.3 T"),
        (time_text, 12.34, "12.3 µs"), (time_text, 1234.0, "1.23 ms"), (time_text, 2e6, "2 s"),
    ],
)  # fmt: skip
def test_numbers_as_text(function, value, text):
    assert function(value) == text
