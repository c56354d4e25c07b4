"""`magicbert compress supernet` on two ranks: each trains its block, as one rank trains both."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tiny_compression import tiny_config, write_run

from magicbert.compression.block_training import STATE
from magicbert.config.reading import to_yaml
from magicbert.training.watching.heartbeat import FOLDER

pytestmark = [pytest.mark.distributed, pytest.mark.slow]


def train(run: Path, num_ranks: int) -> Path:
    """Trains the blocks from the shell; returns their folder."""
    file = run / f"ranks-{num_ranks}.yaml"
    file.write_text(to_yaml(tiny_config(run)))
    environment = {name: v for name, v in os.environ.items() if not name.startswith("MASTER")}
    options = ["--config", str(file), "--run.label", f"on-{num_ranks}",
               "--launch.num_ranks", str(num_ranks)]  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-m", "magicbert", "compress", "supernet", *options],
        env=environment, capture_output=True, text=True, timeout=280, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return run / f"blocks-on-{num_ranks}"


def test_two_ranks_make_the_weights_and_tables_of_one(tmp_path: Path) -> None:
    run = write_run(tmp_path)
    alone, shared = train(run, 1), train(run, 2)
    for name in ("block-1", "block-2"):
        tables = [(folder / name / "table.json").read_text() for folder in (alone, shared)]
        assert tables[0] == tables[1]
        one, other = (
            torch.load(folder / name / STATE, weights_only=True) for folder in (alone, shared)
        )
        assert one["step"] == other["step"] > 0
        assert one["path"] == other["path"]
        assert one["weights"].keys() == other["weights"].keys()
        for key, weight in one["weights"].items():
            assert torch.equal(weight, other["weights"][key]), (name, key)
    assert len(list((shared / FOLDER).glob("rank-*.json"))) == 2
