"""``magicbert bench engine`` on real ranks: what a cut run left is kept, the rest is measured."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from magicbert.bench.engine.matches import Match
from magicbert.bench.engine.record import SCHEMA, new_record
from magicbert.config.sections import EngineBenchSection
from magicbert.records import read_record, write_record

pytestmark = pytest.mark.distributed
ROOT = Path(__file__).parents[2]
SMALL = EngineBenchSection(
    stages=(0,), ranks=(1,), candidates=(2,), num_layers=2, hidden_size=8, rounds=2, peer_rounds=1
)


def bench(folder: Path) -> subprocess.CompletedProcess[str]:
    options = ["--run.root", str(folder), "--publish", str(folder / "copy.json")]
    for name in ("stages", "ranks", "candidates"):
        options += [f"--engine.{name}", str(list(getattr(SMALL, name)))]
    for name in ("num_layers", "hidden_size", "rounds", "peer_rounds"):
        options += [f"--engine.{name}", str(getattr(SMALL, name))]
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'kernels'}"}
    return subprocess.run(
        [sys.executable, "-m", "magicbert", "bench", "engine", *options],
        cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=280,
    )  # fmt: skip


def test_a_cut_run_goes_on(tmp_path: Path) -> None:
    record = new_record(SMALL)
    mark = {"contender": "stock", "stage": 0, "ranks": 1, "candidates": 2, "load_average": [0, 0]}
    ratio = {"stock": {"cpu": {"whole": {"median": 77.0}, "step": {"median": 88.0}}}}
    counted = {"step_bytes_per_parameter": 99.0}
    record["rows"] = [{**mark, "ratio_to_plain": ratio, "counted": counted}]
    file = tmp_path / "run" / "bench" / "engine.json"
    write_record(file, SCHEMA, record)

    done = bench(tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    found = {Match.read(row): row for row in read_record(file, SCHEMA)["rows"]}
    assert found.pop(Match("stock", 0, 1, 2)) == record["rows"][0]
    own = found[Match("magicbert", 0, 1, 2)]
    assert set(found) == {
        Match("magicbert", 0, 1, 2), Match("ddp", 0, 1, 2), Match("plain, torch_adam", 0, 1, 1)
    }  # fmt: skip
    for clock in ("cpu", "wall"):
        times = own["milliseconds"]["magicbert"][clock]
        parts = sum(times[phase] for phase in ("forward", "backward", "step"))
        assert 0 < times["whole"] < 3 * parts
    aligned = own["milliseconds"]["magicbert, aligned"]["cpu"]
    assert 0 < aligned["anchor_forward"] < aligned["forward"]
    assert "77.00" in done.stdout
    assert read_record(tmp_path / "copy.json", SCHEMA) == read_record(file, SCHEMA)
