"""What the ranks of test_training_loop.py run: whole runs of the loop on the toy tenant."""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from toy_tenant import ToyBatch, ToyObjective, ToySource, ToySupernet, toy_space

from magicbert import faults
from magicbert.config.roots import PretrainConfig
from magicbert.config.sections import (
    AlignmentSection,
    OptimizerSection,
    RunSection,
    SamplingSection,
    TrainingSection,
)
from magicbert.errors import UserError
from magicbert.interference.probe import InterferenceProbe
from magicbert.records import digest_of
from magicbert.space import Architecture
from magicbert.supernet.anchor import build_anchor_policy
from magicbert.supernet.sampling import build_sampler
from magicbert.trail import read_metrics
from magicbert.training.control import Notice, StepAgreement, agree
from magicbert.training.parts import Outcome, Parts, Sections
from magicbert.training.ranks import AgreedError, Ranks
from magicbert.training.run import train
from magicbert.training.samples import DatedSource
from magicbert.training.small_training import SmallTraining
from magicbert.training.starting.environment import join_process_group

ROWS, MICRO_BATCHES, STEPS = 4, 2, 12


class DropoutSupernet(ToySupernet):
    """The toy with dropout, so that a wrong random state shows; in the weights' precision."""

    def enter(self, batch: ToyBatch) -> tuple[Tensor, Any]:
        hidden = self.embed(batch.inputs.to(self.embed.weight.dtype))
        return torch.nn.functional.dropout(hidden, 0.2, self.training), None


class KillingSampler:
    """Sends this process SIGTERM when a step is reached."""

    def __init__(self, inner: Any, step: int) -> None:
        self.inner, self.step = inner, step

    def next(self, step: int, previous: Architecture | None) -> Architecture:
        if step == self.step:
            os.kill(os.getpid(), signal.SIGTERM)
        return self.inner.next(step, previous)


def configuration(stage: int, precision: str, num_ranks: int, **training: Any) -> PretrainConfig:
    return PretrainConfig(
        run=RunSection(name="toy"),
        sampling=SamplingSection(method="magic-t", num_changes=1),
        alignment=AlignmentSection(
            enabled=True, num_blocks=2, every=2, num_dev_batches=2, weight=0.5
        ),
        optimizer=OptimizerSection(learning_rate=5e-3, warmup_steps=3, clip_norm=0.5),
        training=TrainingSection(
            **{
                "num_steps": STEPS,
                "rows_per_step": ROWS * MICRO_BATCHES * num_ranks,
                "rows_per_micro_batch": ROWS,
                "precision": precision,
                "zero_stage": stage,
                "log_every": 1,
                "evaluate_every": 6,
                "num_eval_batches": 3,
                "num_eval_paths": 2,
                "checkpoint_every": 100,
                **training,
            }
        ),
    )


def run(
    config: PretrainConfig, folder: Path, ranks: Ranks, kill_at: int | None = None
) -> tuple[Outcome, str]:
    """Trains from the newest checkpoint on; returns the outcome and a digest of the weights."""
    torch.manual_seed(1)
    supernet = DropoutSupernet(toy_space())
    torch.rand(3)  # the global generator must not matter
    sampler: Any = build_sampler(config.sampling, supernet.space, seed=3)
    if kill_at is not None:
        sampler = KillingSampler(sampler, kill_at)
    anchors = build_anchor_policy(config.alignment, supernet.space, seed=3)
    parts = Parts(
        ToyObjective(),
        ToySource(ROWS, MICRO_BATCHES),
        sampler,
        anchors if config.alignment.enabled else None,
        InterferenceProbe(ToyObjective()),
    )
    sections = Sections(config.training, config.optimizer, config.alignment)
    outcome = train(config, sections, folder, supernet, parts, {"data": "toy"}, ranks)
    weights = {name: value.double().tolist() for name, value in supernet.state_dict().items()}
    return outcome, digest_of(weights)


def small_training_is_the_same(rank: int, num_ranks: int, folder: Path, arguments: Any) -> Any:
    """Trains with the engine and without one; returns how far the weights lie apart."""
    ranks = join_process_group()
    config = configuration(0, "fp32", num_ranks)
    sections = Sections(config.training, config.optimizer, config.alignment)
    supernets, anchors = [], []
    for kind in ("engine", "small"):
        torch.manual_seed(1)
        supernet = DropoutSupernet(toy_space())
        sampler = build_sampler(config.sampling, supernet.space, seed=3)
        policy = build_anchor_policy(config.alignment, supernet.space, seed=3)
        source = ToySource(ROWS, MICRO_BATCHES)
        parts = Parts(ToyObjective(), source, sampler, policy)
        if kind == "engine":
            train(config, sections, folder, supernet, parts, {"data": "toy"}, ranks)
        else:
            small = SmallTraining(supernet, parts, sections, lambda path: 1.0)
            for _ in range(STEPS):
                small.advance()
        supernets.append(supernet)
        anchors.append(str(policy.anchor))
    pairs = zip(supernets[0].parameters(), supernets[1].parameters(), strict=True)
    return {"apart": max(float((a - b).abs().max()) for a, b in pairs), "anchors": anchors}


def steps_of(folder: Path) -> list[Any]:
    """What every step logged, without clocks."""
    rows = read_metrics(folder)
    for row in rows:
        row.pop("time", None)
        row.pop("tokens_per_second", None)
    return sorted(rows, key=lambda row: (row["step"], row["kind"], str(row)))


def resume_is_exact(rank: int, num_ranks: int, folder: Path, arguments: Any) -> list[Any]:
    """Trains in one go, and in two starts cut by SIGTERM on the last rank."""
    ranks = join_process_group()
    results = []
    for stage, precision in arguments:
        config = configuration(stage, precision, num_ranks)
        name = f"{precision}-{stage}"
        whole, whole_digest = run(config, folder / f"{name}-whole", ranks)
        cut_folder = folder / f"{name}-cut"
        killed = 5 if rank == num_ranks - 1 else None
        cut, _ = run(config, cut_folder, ranks, kill_at=killed)
        rest, rest_digest = run(config, cut_folder, ranks)
        results.append(
            {
                "endings": [whole.ending, cut.ending, rest.ending],
                "cut at": cut.state.step,
                "weights equal": whole_digest == rest_digest,
                "valid": [whole.valid.loss, rest.valid.loss],
                "tokens": [whole.state.num_tokens, rest.state.num_tokens],
                "steps equal": steps_of(folder / f"{name}-whole") == steps_of(cut_folder),
                "num steps": len([r for r in steps_of(cut_folder) if r["kind"] == "train"]),
                "anchors": len([r for r in steps_of(cut_folder) if r["kind"] == "anchor"]),
            }
        )
    return results


def probes_change_nothing(rank: int, num_ranks: int, folder: Path, arguments: Any) -> Any:
    """Trains with and without measuring interference."""
    ranks = join_process_group()
    digests, rows = [], []
    for stage in (1, 2):
        for every in (0, 4):
            place = folder / f"{stage}-{every}"
            config = configuration(stage, "fp32", num_ranks, probe_interference_every=every)
            digests.append(run(config, place, ranks)[1])
            rows.append([row for row in steps_of(place) if row["kind"] == "interference"])
    return {"digests": digests, "rows": rows}


def checkpoints_are_guarded(rank: int, num_ranks: int, folder: Path, arguments: Any) -> Any:
    """Damages checkpoints and changes configurations between starts."""
    ranks = join_process_group()
    config = configuration(1, "fp32", num_ranks, checkpoint_every=4, keep_checkpoints=2)
    run(config, folder, ranks)
    root = folder / "checkpoints"
    kept = sorted(path.name for path in root.iterdir())
    found: dict[str, Any] = {"kept": kept}
    longer = replace(config.training, num_steps=STEPS + 1)
    try:
        run(replace(config, training=longer), folder, ranks)
    except UserError as error:
        found["other config"] = str(error)
    ranks.barrier()
    if ranks.is_first:
        shard = root / "step-12" / "shard-00000.safetensors"
        data = bytearray(shard.read_bytes())
        data[-1] ^= 1
        shard.write_bytes(bytes(data))
    ranks.barrier()
    before = len([r for r in steps_of(folder) if r["kind"] == "train"])
    outcome, _ = run(config, folder, ranks)
    ranks.barrier()
    found["retrained"] = len([r for r in steps_of(folder) if r["kind"] == "train"]) - before
    found["ending"] = outcome.ending
    return found


def failed_saves(rank: int, num_ranks: int, folder: Path, arguments: Any) -> Any:
    """Fills the disk of the last rank under some saves: two in a row twice, then three."""
    ranks = join_process_group()
    config = configuration(1, "fp32", num_ranks, checkpoint_every=2)
    found: dict[str, Any] = {}
    for name, steps in {"two": (2, 4, 8, 10), "three": (4, 6, 8), "last": (12,)}.items():
        rules = [f"save.shard.written=ENOSPC@step:{step},rank:{num_ranks - 1}" for step in steps]
        faults.RULES[:] = [faults.Rule.parse(rule) for rule in rules]
        try:
            found[name] = run(config, folder / name, ranks)[0].ending
        except AgreedError as error:
            found[name] = str(error)
        finally:
            found[f"{name} hits"] = sum(rule.num_hits for rule in faults.RULES)
            faults.RULES.clear()
        ranks.barrier()
        found[f"{name} kept"] = sorted(
            path.name for path in (folder / name / "checkpoints").iterdir()
        )
        found[f"{name} log"] = (folder / name / "log.txt").read_text()
    return found


def stops_in_time(rank: int, num_ranks: int, folder: Path, arguments: Any) -> Any:
    """Lets the clock run out after the first step; then lets the run end."""
    ranks = join_process_group()
    config = configuration(2, "fp32", num_ranks)
    short = replace(config, training=replace(config.training, max_minutes=1e-9))
    first, _ = run(short, folder, ranks)
    second, _ = run(short, folder, ranks)
    last, _ = run(config, folder, ranks)
    return [[outcome.ending, outcome.state.step] for outcome in (first, second, last)]


def disagreement(rank: int, num_ranks: int, folder: Path, arguments: Any) -> Any:
    """Exchanges the message of a step: once alike, once with a path of each rank's own."""
    ranks = join_process_group()
    (data,) = DatedSource(ToySource(ROWS, MICRO_BATCHES)).step_batches(0, rank, num_ranks)
    paths = list(toy_space().enumerate())

    def message(path: Architecture) -> StepAgreement:
        return agree(
            ranks, 0, (path, None), ToyObjective(), data,
            Notice(is_interrupted=rank == num_ranks - 1, is_out_of_time=rank == 1),
        )  # fmt: skip

    alike = message(paths[0])
    counts = [
        ToyObjective().count(batch)
        for other in range(num_ranks)
        for batch in ToySource(ROWS, MICRO_BATCHES).step_batches(0, other, num_ranks)
    ]
    try:
        message(paths[rank])
        error = ""
    except AgreedError as problem:
        error = str(problem)
    return {
        "count": alike.count == sum(counts),
        "positions": alike.num_positions == ROWS * MICRO_BATCHES * num_ranks,
        "interrupted": alike.is_interrupted,
        "out of time": alike.is_out_of_time,
        "error": error,
    }


def shared_buffers() -> list[str]:
    """Names in shared memory that DeepSpeed's operator gave to the ranks of this start."""
    port = os.environ["MASTER_PORT"]
    return [path.name for path in Path("/dev/shm").glob(f"deepspeed_allreduce_buffer_*_{port}_*")]


def everything(rank: int, num_ranks: int, folder: Path, arguments: Any) -> Any:
    settings = [(1, "fp32"), (1, "bf16")] if num_ranks == 2 else [(0, "fp32"), (2, "bf16")]
    return {
        "resume": resume_is_exact(rank, num_ranks, folder / "resume", settings),
        "shared buffers": shared_buffers(),
        "guard": checkpoints_are_guarded(rank, num_ranks, folder / "guard", None),
        "saves": failed_saves(rank, num_ranks, folder / "saves", None),
        "agreement": disagreement(rank, num_ranks, folder, None),
        "probe": probes_change_nothing(rank, num_ranks, folder / "probe", None),
        "time": stops_in_time(rank, num_ranks, folder / "time", None),
    }
