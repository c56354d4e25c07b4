"""The arithmetic, the record and the table of ``magicbert bench engine``."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from magicbert.bench.accounting import Accounting
from magicbert.bench.clock import Instant, phases
from magicbert.bench.engine import record as records
from magicbert.bench.engine.matches import Match, matches
from magicbert.bench.engine.playing import average_over_ranks, row_of
from magicbert.bench.engine.record import SCHEMA, add_row, missing, new_record, open_record
from magicbert.bench.engine.table import HEAD, markdown, table_rows
from magicbert.bench.ratios import median_of, paired_ratio
from magicbert.cli import parse
from magicbert.config.reading import load_config
from magicbert.config.roots import BenchConfig
from magicbert.config.sections import EngineBenchSection
from magicbert.errors import UserError
from magicbert.records import read_record

ROOT = Path(__file__).parents[2]
SETTING = EngineBenchSection(stages=(0, 1), candidates=(4,), rounds=2)


def test_opening_a_step_counts_as_its_step_phase():
    marks = [Instant(cpu, 10 * cpu) for cpu in (0.0, 0.001, 0.003, 0.006, 0.010)]
    cpu, wall = phases(marks)["cpu"], phases(marks)["wall"]
    assert cpu == pytest.approx({"forward": 2, "backward": 3, "step": 5, "whole": 10})
    assert wall["whole"] == pytest.approx(100)


def test_a_ratio_is_taken_within_rounds_so_that_a_slow_spell_cancels():
    """The machine is ten times slower in the second round; one step of it is an outlier."""
    own = [[1.1, 1.1, 1.1], [11.0, 11.0, 400.0], [1.1, 1.1, 1.1]]
    plain = [[1.0, 1.0, 1.0], [10.0, 10.0, 10.0], [1.0, 1.0, 1.0]]
    assert paired_ratio(own, plain).median == pytest.approx(1.1)
    assert median_of(own) == 1.1


def test_the_interval_holds_the_median_and_grows_with_the_spread():
    plain = [[1.0]] * 9
    calm = paired_ratio([[1 + 0.001 * i] for i in range(9)], plain)
    wild = paired_ratio([[1 + 0.1 * i] for i in range(9)], plain)
    assert calm.low <= calm.median <= calm.high
    assert wild.high - wild.low > 50 * (calm.high - calm.low)
    assert paired_ratio([[2.0]], [[1.0]]).low == 2.0


def test_times_are_averaged_over_ranks_step_by_step():
    parts = [{"cpu": {"whole": [[1.0, 2.0]]}}, {"cpu": {"whole": [[3.0, 6.0]]}}]
    assert average_over_ranks(parts) == {"cpu": {"whole": [[2.0, 4.0]]}}


def test_every_setting_has_its_match_and_ddp_stands_with_stage_0():
    found = matches(SETTING, 2)
    assert found[:2] == [Match("magicbert", 0, 2, 4), Match("magicbert", 1, 2, 4)]
    assert [match for match in found if match.contender == "ddp"] == [Match("ddp", 0, 2, 4)]
    assert matches(dataclasses.replace(SETTING, peers=False), 2) == found[:2]


def row_with(match: Match, whole: float) -> dict[str, Any]:
    times = {
        name: {
            clock: {
                phase: [[value]] * 2
                for phase in ("forward", "backward", "step", "whole", "anchor_forward")
            }
            for clock in ("cpu", "wall")
        }
        for name, value in ((match.contender, whole), ("magicbert, aligned", 5.0), ("plain", 2.0))
    }
    row = row_of(match, times)
    counted = {"step_bytes_per_parameter": 36.01, "messages": 3}
    return {**row, "counted": counted, "rounds": 2, "load_average": [0.1, 0.4], "seconds": 1.0}


def test_a_cut_run_keeps_its_rows_and_other_code_does_not_take_them(tmp_path, monkeypatch):
    file = tmp_path / "engine.json"
    record = open_record(file, SETTING)
    assert len(missing(record, SETTING, 1)) == len(matches(SETTING, 1))
    add_row(file, record, row_with(Match("magicbert", 1, 1, 4), 3.0))
    kept = open_record(file, SETTING)
    assert kept["rows"] == record["rows"]
    assert Match("magicbert", 1, 1, 4) not in missing(kept, SETTING, 1)
    assert Match("magicbert", 1, 2, 4) in missing(kept, SETTING, 2)
    longer = dataclasses.replace(SETTING, rounds=3)
    assert open_record(file, longer)["rows"] == []
    monkeypatch.setattr(records, "code_digest", lambda rooms: "other")
    assert open_record(file, SETTING)["rows"] == []


def test_the_table_shows_the_ratios_and_the_peers_beside_them():
    record = new_record(SETTING)
    for match, whole in (
        (Match("magicbert", 1, 2, 4), 2.1), (Match("stock", 1, 2, 4), 5.0),
        (Match("ddp", 0, 2, 4), 4.0),
    ):  # fmt: skip
        record["rows"].append(row_with(match, whole))
    (row,) = [dict(zip(HEAD, cells, strict=True)) for cells in table_rows(record)]
    assert (row["ZeRO"], row["ranks"], row["candidates"]) == ("1", "2", "4")
    assert row["step / plain"] == "1.05"
    assert (row["bytes"], row["messages"], row["stock's bytes"]) == ("36", "3", "36")
    assert (row["stock"], row["DDP"], row["anchor [ms]"]) == ("2.50", "2.00", "5.0")
    assert "0.1 to 0.4" in markdown(record)


def test_the_page_is_what_the_script_writes():
    """The script is ``python benchmarks/engine_page.py``; its work must be committed."""
    record = ROOT / "benchmarks" / "results" / "engine.json"
    table = markdown(read_record(record, SCHEMA))
    assert table in (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")


def test_the_script_runs():
    before = (ROOT / "docs" / "benchmarks.md").read_bytes()
    script = str(ROOT / "benchmarks" / "engine_page.py")
    subprocess.run([sys.executable, script], cwd=ROOT, check=True, env=None)
    assert (ROOT / "docs" / "benchmarks.md").read_bytes() == before


def test_the_record_says_where_it_comes_from():
    record = json.loads((ROOT / "benchmarks" / "results" / "engine.json").read_text())
    assert len(record["commit"].removesuffix("-dirty")) == 40
    assert {"torch", "deepspeed", "python"} <= set(record["versions"])
    assert record["machine"]["processor"]


def test_the_word_after_the_verb_is_the_target():
    request = parse(["bench", "engine", "--engine.rounds", "2"])
    assert request is not None
    assert request.overrides == {"target": "engine", "engine.rounds": "2"}
    config = load_config(BenchConfig, None, request.overrides)
    assert config.engine.rounds == 2
    with pytest.raises(UserError, match="engine"):
        load_config(BenchConfig, None, {"target": "kernel"})
    with pytest.raises(UserError, match="unexpected 'engine'"):
        parse(["pretrain", "engine"])


def test_bytes_are_counted_once_read_once_written_twice_changed():
    a, b = torch.ones(10), torch.ones(10)
    counts = {
        "add": lambda: a + b, "add_": lambda: a.add_(b), "copy_": lambda: a.copy_(b),
        "view": lambda: a.view(2, 5), "zeros_like": lambda: torch.zeros_like(a),
        "lists": lambda: torch._foreach_mul_([a, b], 2.0),
    }  # fmt: skip
    found = {}
    for name, run in counts.items():
        with Accounting() as accounting:
            run()
        found[name] = accounting.bytes_touched // 40
    assert found == {"add": 3, "add_": 3, "copy_": 2, "view": 0, "zeros_like": 1, "lists": 4}


def test_a_fused_step_writes_gradients_back_only_when_it_scales_them():
    parameter = torch.ones(1000, requires_grad=True)
    parameter.grad = torch.ones(1000)
    adamw = torch.optim.AdamW([parameter], fused=True)
    adamw.step()
    found = []
    for scale in (None, torch.tensor(2.0)):
        adamw.grad_scale, adamw.found_inf = scale, torch.tensor(0.0)  # type: ignore[attr-defined]
        before = parameter.grad.clone()
        with Accounting() as accounting:
            adamw.step()
        found.append(round(accounting.bytes_touched / 1000))
        assert torch.equal(parameter.grad, before) == (scale is None)
    assert found == [28, 32]
