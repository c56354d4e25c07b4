"""What stock DeepSpeed does with a torn path and with a frozen rank: measured, not quoted."""

from __future__ import annotations

import hashlib
import os
import signal
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from forked_ranks import rank_server
from torch import Tensor, nn

STEPS, TORN_AT, ROWS, WIDTH = 12, 7, 8, 16
# How long a frozen rank is waited for; the peer is given a timeout of 20 s.
TIMEOUT, WAIT = 20, 60
NUM_LAYERS = 3


class Choices(nn.Module):
    """Three layers with two candidates of one shape each."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(2 * NUM_LAYERS))
        self.head = nn.Linear(WIDTH, 2)

    def forward(self, inputs: Tensor, targets: Tensor, path: int) -> Tensor:
        for layer in range(NUM_LAYERS):
            inputs = torch.relu(self.layers[2 * layer + (path >> layer & 1)](inputs)) + inputs
        return nn.functional.cross_entropy(self.head(inputs), targets)


def train(rank: int, num_ranks: int, folder: Path, arguments: dict[str, Any]) -> str:
    """Trains with stock DeepSpeed; returns a hash of this rank's weights."""
    import deepspeed

    deepspeed.init_distributed("gloo", timeout=timedelta(seconds=TIMEOUT), verbose=False)
    torch.manual_seed(0)
    config = {
        "train_batch_size": ROWS * num_ranks,
        "train_micro_batch_size_per_gpu": ROWS,
        "zero_optimization": {"stage": arguments["stage"]},
        "steps_per_print": 10**9,
    }
    model = Choices()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    engine, *_ = deepspeed.initialize(model=model, optimizer=optimizer, config=config)
    for step in range(arguments["steps"]):
        path = step % 2**NUM_LAYERS
        if step == TORN_AT and rank == 1 and arguments["is_torn"]:
            path = 2**NUM_LAYERS - 1 - path
        generator = torch.Generator().manual_seed(step * num_ranks + rank)
        inputs = torch.randn(ROWS, WIDTH, generator=generator)
        loss = engine(inputs, (inputs.sum(-1) > 0).long(), path)
        engine.backward(loss)
        engine.step()
        (folder / f"step-{rank}").write_text(str(step))
    weights = b"".join(p.detach().numpy().tobytes() for p in engine.module.parameters())
    return hashlib.sha256(weights).hexdigest()


def torn_figure(folder: Path) -> str:
    """Tears the path apart at one step, at each stage without partitioned weights."""
    ends = []
    for stage in (0, 1, 2):
        arguments = {"stage": stage, "steps": STEPS, "is_torn": True}
        trial = rank_server().start("raw_deepspeed:train", 2, folder / str(stage), arguments)
        try:
            hashes = trial.results(60)
            ends.append("same hash on all ranks" if len(set(hashes)) == 1 else "other hashes")
        except (AssertionError, TimeoutError):
            ends.append("stopped")
    if set(ends) == {"same hash on all ranks"}:
        return "never noticed at stages 0-2: trained on to the end, weights equal on all ranks"
    return "; ".join(f"stage {stage}: {end}" for stage, end in enumerate(ends))


def frozen_figure(folder: Path) -> str:
    """Stops rank 1 in the middle of training and waits for rank 0 to notice."""
    arguments = {"stage": 1, "steps": 10**9, "is_torn": False}
    trial = rank_server().start("raw_deepspeed:train", 2, folder, arguments)
    deadline = time.monotonic() + 120
    while not (folder / "step-1").is_file() and time.monotonic() < deadline:
        time.sleep(0.1)
    os.kill(trial.pids[1], signal.SIGSTOP)
    stopped = time.monotonic()
    while trial.codes()[0] is None and time.monotonic() - stopped < WAIT:
        time.sleep(0.2)
    seconds, has_noticed = time.monotonic() - stopped, trial.codes()[0] is not None
    trial.kill()
    trial.wait(20)
    return f"noticed after {seconds:.0f} s" if has_noticed else f"not noticed within {WAIT} s"
