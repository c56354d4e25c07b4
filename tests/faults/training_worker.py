"""What forked ranks run when whole training runs are under test: the toy tenant on DeepSpeed."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import loop_worker
import torch

from magicbert.cli import set_up_logging
from magicbert.config.sections import LaunchSection
from magicbert.errors import UserError
from magicbert.training.checkpoints import CheckpointStore
from magicbert.training.starting.environment import accelerator, join_process_group
from magicbert.training.watching.guarding import guarded


def train_toy(rank: int, num_ranks: int, folder: Path, arguments: Any) -> Any:
    """Trains, or goes on; ``arguments``: ``root`` and options of the training section."""
    set_up_logging()
    if arguments.get("mutant") == "one back":
        go_one_back()
    ranks = join_process_group()
    config = loop_worker.configuration(1, "fp32", num_ranks, **arguments.get("training", {}))
    try:
        outcome, digest = loop_worker.run(config, Path(arguments["root"]), ranks)
    except UserError as error:
        return {"error": str(error)}
    return {"ending": outcome.ending, "step": outcome.state.step, "digest": digest}


def train_guarded(rank: int, num_ranks: int, folder: Path, arguments: Any) -> Any:
    """Trains under the watchdog; ``arguments``: as `train_toy`, and ``save_minutes``."""
    launch = LaunchSection(num_ranks=num_ranks, save_minutes=arguments["save_minutes"])
    with guarded(Path(arguments["root"]), rank, num_ranks, launch):
        return train_toy(rank, num_ranks, folder, arguments)


def go_one_back() -> None:
    """A mutant: the newest checkpoint is passed over where there are two."""
    steps = CheckpointStore.steps
    CheckpointStore.steps = lambda self: steps(self)[1:] or steps(self)  # type: ignore[method-assign]


def raw_deepspeed_slow_save(rank: int, num_ranks: int, folder: Path, arguments: Any) -> None:
    """Saves twice with DeepSpeed alone; in the second save, rank 1 writes late."""
    accelerator()
    import deepspeed

    deepspeed.init_distributed("gloo")
    model = torch.nn.Linear(64, 64)
    settings = {
        "train_micro_batch_size_per_gpu": 1,
        "zero_optimization": {"stage": 1},
        "optimizer": {"type": "Adam", "params": {"torch_adam": True}},
    }
    engine, *_ = deepspeed.initialize(
        model=model, model_parameters=model.parameters(), config=settings
    )
    save = engine.checkpoint_engine.save

    def save_late(*values: Any, **names: Any) -> Any:
        time.sleep(20)
        return save(*values, **names)

    for step in (2, 4):
        if rank == 1 and step == 4:
            engine.checkpoint_engine.save = save_late
        engine.backward(engine(torch.ones(1, 64)).sum())
        engine.step()
        engine.save_checkpoint(str(folder), tag=f"step{step}")
