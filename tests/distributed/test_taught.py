"""A teacher's hidden states and relations under every ZeRO stage, and in a stage that is cut."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ranks import run_ranks
from safetensors.torch import load_file
from tiny_compression import write_run

from magicbert.trail import read_metrics

pytestmark = pytest.mark.distributed


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("taught"))


@pytest.fixture(scope="module")
def found(run: Path) -> Any:
    return run_ranks("taught_worker:check", 1, run.parent / "ranks", str(run))[0]


def test_students_and_their_maps_train_as_in_plain_torch_at_every_stage(found: Any) -> None:
    assert set(found["stages"]) == {"0", "1", "2", "3"}
    for stage, errors in found["stages"].items():
        assert errors["error"] < 1e-5, stage
        assert errors["maps moved"] > 1e-4, stage


def test_a_resumed_retraining_ends_as_one_that_ran_through(run: Path, found: Any) -> None:
    digests = found["digests"]
    assert digests["cut 1e-09"] == ""
    assert digests["cut 0"] == digests["whole 0"] != ""
    weights = load_file(run / "retrain-cut" / "model" / "model.safetensors")
    assert not any("hidden_maps" in name for name in weights)
    rows = read_metrics(run / "retrain-cut")
    trained = [row for row in rows if row["kind"] == "train"]
    assert [row["step"] for row in trained] == [1, 2, 3]
    assert all(row["hidden_error"] > 0 and row["relation_error"] > 0 for row in trained)
    (valid,) = [row for row in rows if row["kind"] == "valid"]
    assert "hidden_error" not in valid
