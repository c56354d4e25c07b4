"""A rank of a whole run on the toy tenant, as `magicbert pretrain` runs one under a launcher."""

from __future__ import annotations

import hashlib
import os
import sys
from pathlib import Path
from typing import Any

import torch
from toy_tenant import ToyBatch, ToyObjective, ToySource, ToySupernet, toy_space

from magicbert.config.reading import from_tree
from magicbert.config.roots import PretrainConfig
from magicbert.supernet.sampling import build_sampler
from magicbert.training.parts import Parts, Sections
from magicbert.training.run import train
from magicbert.training.starting.environment import join_process_group
from magicbert.training.starting.launching import run_on_ranks
from magicbert.training.watching.exit_codes import EXIT_INTERRUPTED

ROWS, MICRO_BATCHES = 4, 2
BASE = {
    "run": {"name": "toy"},
    "alignment": {"enabled": False},
    "sampling": {"method": "uniform"},
    "optimizer": {"learning_rate": 0.005, "warmup_steps": 3, "clip_norm": 0.5},
    "training": {
        "num_steps": 12, "rows_per_step": 16, "rows_per_micro_batch": 4, "precision": "fp32",
        "zero_stage": 1, "log_every": 1, "evaluate_every": 1000, "num_eval_batches": 2,
        "num_eval_paths": 2, "checkpoint_every": 1000,
    },
    "launch": {
        "join_minutes": 2.0, "start_minutes": 2.0, "step_minutes": 1.0, "evaluate_minutes": 1.0,
        "save_minutes": 1.0, "threads_per_rank": 1,
    },
}  # fmt: skip


def configuration(changes: dict[str, dict[str, Any]]) -> PretrainConfig:
    tree = {name: {**BASE.get(name, {}), **changes.get(name, {})} for name in {**BASE, **changes}}
    return from_tree(PretrainConfig, tree, "toy")


class AnyPrecision(ToySupernet):
    """The toy in the precision of its weights."""

    def enter(self, batch: ToyBatch) -> tuple[torch.Tensor, Any]:
        return self.embed(batch.inputs.to(self.embed.weight.dtype)), None


class NamedBatch(ToyBatch):
    """A batch that knows its rows."""

    sample_ids: tuple[int, ...] = ()

    def to(self, device: torch.device) -> ToyBatch:
        return ToyBatch(self.inputs.to(device), self.targets.to(device))


class NamedSource(ToySource):
    """The toy's source; row ``i`` of step ``s`` is sample ``s * rows + i``."""

    def sample_ids(self, step: int) -> range:
        size = self.rows * self.num_micro_batches * int(os.environ["WORLD_SIZE"])
        return range(step * size, (step + 1) * size)

    def step_batches(self, step: int, rank: int, num_ranks: int) -> list[ToyBatch]:
        ids = self.sample_ids(step)
        batches: list[ToyBatch] = []
        for number, batch in enumerate(super().step_batches(step, rank, num_ranks)):
            named = NamedBatch(batch.inputs, batch.targets)
            first = (rank + number * num_ranks) * self.rows
            object.__setattr__(named, "sample_ids", tuple(ids[first : first + self.rows]))
            batches.append(named)
        return batches


def run(rank: int, num_ranks: int, folder: Path, settings: dict[str, Any]) -> None:
    """Runs a rank to its end.

    ``settings["config"]`` holds what differs from `BASE`; ``settings["prepare"]`` names a function
    ``module:function(parts, config)`` that changes parts or product in this process.
    """
    changes = settings.get("config", {})
    config = configuration(changes)
    stage = folder / "stage"

    def train_here() -> None:
        ranks = join_process_group(config.launch)
        torch.manual_seed(1)
        supernet = AnyPrecision(toy_space())
        sampler = build_sampler(config.sampling, supernet.space, config.training.seed)
        parts = Parts(ToyObjective(), NamedSource(ROWS, MICRO_BATCHES), sampler, None)
        own_config = config
        for target in settings.get("prepare", ()):
            name, _, argument = target.partition("=")
            module, function = name.split(":")
            changed = getattr(__import__(module), function)(parts, own_config, argument)
            parts, own_config = changed or (parts, own_config)
        sections = Sections(own_config.training, own_config.optimizer, own_config.alignment)
        facts = {"data": "toy"}
        outcome = train(own_config, sections, stage, supernet, parts, facts, ranks)
        weights = b"".join(p.detach().double().numpy().tobytes() for p in supernet.parameters())
        digest = hashlib.sha256(weights).hexdigest()
        is_finite = all(bool(p.isfinite().all()) for p in supernet.parameters())
        print(f"END {outcome.ending} {outcome.state.step} {digest} {is_finite}", flush=True)
        ranks.barrier("end")
        if outcome.ending == "interrupted":
            sys.exit(EXIT_INTERRUPTED)

    try:
        run_on_ranks("pretrain", config, stage, lambda num_ranks: None, train_here)
    except Exception as error:
        code = getattr(error, "exit_code", None)
        if code is None:
            raise
        print(f"magicbert: {error}", file=sys.stderr, flush=True)
        sys.exit(code)
