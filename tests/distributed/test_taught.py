"""A teacher's hidden states and relations under every ZeRO stage, and in a stage that is cut."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ranks import run_ranks
from safetensors.torch import load_file
from tiny_compression import write_run

from magicbert.config.reading import to_yaml
from magicbert.config.roots import RetrainConfig
from magicbert.config.sections import (
    DistillationSection,
    LaunchSection,
    ModelSection,
    OptimizerSection,
    RunSection,
    TrainingSection,
)
from magicbert.trail import read_metrics

pytestmark = pytest.mark.distributed
NUM_STEPS = 6


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


@pytest.mark.slow
def test_two_ranks_train_as_plain_torch_at_every_stage(tmp_path: Path) -> None:
    for stages in run_ranks("taught_worker:check_stages_of_ranks", 2, tmp_path):
        for stage, errors in stages.items():
            assert errors["error"] < 1e-5, stage
            assert errors["maps moved"] > 1e-4, stage


@pytest.mark.slow
def test_two_launched_ranks_end_with_the_weights_of_one(run: Path) -> None:
    kinds = {"one": (1, 0), "two": (2, 1)}
    for label, (num_ranks, zero_stage) in kinds.items():
        launch(run, retraining(run, label, num_ranks, zero_stage))
    one, two = (
        load_file(run / f"retrain-{label}" / "model" / "model.safetensors") for label in kinds
    )
    assert set(one) == set(two)
    for name, weights in one.items():
        if "query_key_value.bias" not in name:  # its key part has nearly no gradient
            assert float((weights - two[name]).abs().max()) < 1e-5, name
    rows = [read_metrics(run / f"retrain-{label}") for label in kinds]
    first, other = ([row for row in made if row["kind"] == "train"] for made in rows)
    assert len(first) == len(other) == NUM_STEPS
    for mine, theirs in zip(first, other, strict=True):
        for name in ("loss", "hidden_error", "relation_error"):
            assert mine[name] == pytest.approx(theirs[name], rel=1e-5), name


def retraining(run: Path, label: str, num_ranks: int, zero_stage: Any) -> RetrainConfig:
    """Returns a retraining without dropout, which every rank would draw for itself."""
    return RetrainConfig(
        run=RunSection(root=str(run.parent), name=run.name, label=label),
        launch=LaunchSection(num_ranks=num_ranks),
        architecture="ffn-mha2-conv3",
        model=ModelSection(hidden_size=16, max_length=64, dropout=0.0, attention_dropout=0.0),
        distillation=DistillationSection(
            teacher=str(run / "teacher"), hidden_weight=0.5, hidden_points=3, attention_weight=0.5,
            relation_heads=4,
        ),
        optimizer=OptimizerSection(learning_rate=1e-3, warmup_steps=1),
        training=TrainingSection(
            num_steps=NUM_STEPS, rows_per_step=8, rows_per_micro_batch=2, precision="fp32",
            zero_stage=zero_stage, log_every=1, num_eval_batches=1, checkpoint_every=100,
        ),
    )  # fmt: skip


def launch(run: Path, config: RetrainConfig) -> None:
    """Retrains from the shell, on every rank that the launcher starts."""
    file = run.parent / f"{config.run.label}.yaml"
    file.write_text(to_yaml(config))
    environment = {name: v for name, v in os.environ.items() if not name.startswith("MASTER")}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    done = subprocess.run(
        [sys.executable, "-m", "magicbert", "retrain", "--config", str(file)],
        env=environment, capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


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
