"""The real command, started cold and killed with all its processes."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from killed_runs import Killings, first_difference
from saving_trials import verified_steps
from stage_runs import steps_of
from tiny_corpus import config_for, make_documents, write_corpus

from magicbert.records import file_digest
from magicbert.stages import prepare

NUM_STEPS = 60
MOST_SECONDS = 300
OPTIONS = {
    "run.name": "tiny", "space.preset": "custom", "space.num_layers": "2",
    "space.candidates": "[ffn, conv3]", "model.hidden_size": "16", "model.max_length": "32",
    "alignment.num_blocks": "2", "optimizer.warmup_steps": "0", "training.rows_per_step": "8",
    "training.rows_per_micro_batch": "4", "training.precision": "fp32",
    "training.log_every": "1", "training.checkpoint_every": "2", "launch.num_ranks": "2",
    "training.num_steps": str(NUM_STEPS), "training.evaluate_every": "30",
}  # fmt: skip


class ColdRun:
    """``magicbert pretrain`` on two ranks in a folder of its own."""

    def __init__(self, root: Path, corpus: Path) -> None:
        prepare.run(config_for(root, corpus))
        self.root, self.stage = root, root / "tiny" / "pretrain"

    def start(self, **more: str) -> subprocess.Popen[str]:
        """Gives the command."""
        options = {"run.root": str(self.root), **OPTIONS, **more}
        words = [word for name, value in options.items() for word in (f"--{name}", value)]
        environment = {name: v for name, v in os.environ.items() if not name.startswith("MASTER")}
        environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
        return subprocess.Popen(
            [sys.executable, "-m", "magicbert", "pretrain", *words], env=environment, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip

    def finish(self) -> dict[str, Any]:
        """Runs to the end; returns the log by step and the digest of the weights."""
        process = self.start()
        output, _ = process.communicate(timeout=MOST_SECONDS)
        assert process.returncode == 0, output
        weights = file_digest(self.stage / "supernet" / "model.safetensors")
        return steps_of(self.stage) | {"weights": weights}

    def newest(self) -> int:
        """The newest step that can be gone on from."""
        return next(iter(verified_steps(self.stage / "checkpoints")), 0)

    def start_and_kill(self, seconds: float) -> bool:
        """Kills the job some seconds after a new checkpoint; was it still at work?"""
        before, process = self.newest(), self.start()
        deadline = time.monotonic() + MOST_SECONDS
        while self.newest() <= before and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        time.sleep(seconds)
        is_at_work = process.poll() is None
        for pid in family_of(process.pid):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.communicate(timeout=30)
        return is_at_work


def family_of(pid: int) -> list[int]:
    """Returns a process and all its descendants; launchers give ranks sessions of their own."""
    parents = {}
    for status in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError, ValueError):
            parents[int(status.parent.name)] = int(status.read_text().rpartition(")")[2].split()[1])
    family = [pid]
    for member in family:
        family += [child for child, parent in parents.items() if parent == member]
    return family


def kill_cold(folder: Path, num_kills: int, seed: int = 0) -> Killings:
    """Kills the real command some times and lets it finish; compares with a run left alone."""
    folder.mkdir(parents=True, exist_ok=True)
    draw, killings = random.Random(seed), Killings(runs=1)
    corpus = write_corpus(folder / "corpus.txt", make_documents(120))
    expected = ColdRun(folder / "whole", corpus).finish()
    run = ColdRun(folder / "killed", corpus)
    for _ in range(num_kills):
        killings.num_killed += run.start_and_kill(draw.uniform(0, 0.2))
        killings.progress.append(run.newest())
    killings.differing = first_difference(expected, run.finish())
    return killings
