"""What the ranks of rows/resuming.py run: whole runs of the loop whose every step is written down.

The toy tenant reads a finite data set in the order of the product's `RowOrder`, so that runs cross
epochs. The oracle is one line per step: floats in hexadecimal, the path, a digest of the samples
in their global order. Two runs are the same if these bytes and the weights are.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import random
import shutil
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from loop_worker import DropoutSupernet, configuration
from torch import Tensor
from toy_tenant import ToyBatch, ToyObjective, ToySupernet, toy_space

from magicbert.config.roots import PretrainConfig
from magicbert.data.order import RowOrder
from magicbert.errors import UserError
from magicbert.supernet.anchor import build_anchor_policy
from magicbert.supernet.sampling import build_sampler
from magicbert.trail import read_metrics
from magicbert.training import resuming
from magicbert.training.checkpoints import CheckpointStore, RunIdentity, store
from magicbert.training.loop import TrainingLoop
from magicbert.training.parts import Parts, Sections
from magicbert.training.ranks import Ranks
from magicbert.training.run import train
from magicbert.training.starting.environment import join_process_group

STEPS, ROWS_PER_STEP, ROWS = 20, 16, 2
NUM_SAMPLES = 72  # epochs end in the middle of steps 4 and 13, and exactly after steps 9 and 18
WIDTH = 8


@dataclass(frozen=True)
class SampleBatch(ToyBatch):
    """Rows that know their numbers in the data set."""

    sample_ids: tuple[int, ...] = ()

    def to(self, device: torch.device) -> SampleBatch:
        moved = super().to(device)
        return SampleBatch(moved.inputs, moved.targets, self.sample_ids)


class EpochSource:
    """Batches of a finite data set; the same global micro-batches for every number of ranks."""

    def __init__(self, rows_per_step: int) -> None:
        self.rows_per_step = rows_per_step
        generator = torch.Generator().manual_seed(0)
        self.inputs = torch.randn(NUM_SAMPLES, WIDTH, generator=generator)
        self.order = RowOrder(NUM_SAMPLES, seed=4)

    def _batch(self, positions: np.ndarray) -> SampleBatch:
        epochs, rows = self.order.locate(positions)
        inputs = self.inputs[torch.from_numpy(rows)]
        targets = (inputs.sum(-1) > 0).long()
        dropped = torch.from_numpy((rows * 7 + epochs * 3) % 10 < 3)  # another mask every epoch
        return SampleBatch(inputs, torch.where(dropped, -1, targets), tuple(rows.tolist()))

    def step_batches(self, step: int, rank: int, num_ranks: int) -> list[SampleBatch]:
        if self.rows_per_step % (ROWS * num_ranks):
            raise ValueError("the loop must not get here")
        first = step * self.rows_per_step
        positions = np.arange(first, first + self.rows_per_step, dtype=np.int64)
        return [self._batch(part) for part in positions.reshape(-1, num_ranks, ROWS)[:, rank]]

    def dev_batches(self, num_batches: int) -> list[SampleBatch]:
        return [self._batch(np.arange(ROWS, dtype=np.int64) + ROWS * i) for i in range(num_batches)]


class WrittenObjective(ToyObjective):
    """Writes down which samples were trained on, and ends the process where it is told to.

    Args:
        file: one line per micro-batch.
        kill_at: (step, micro-batch) of a ``kill -9``.
    """

    def __init__(self, file: Path, kill_at: Sequence[int] | None) -> None:
        self.file, self.kill_at = file, kill_at
        self.step, self.number = -1, 0

    def begin(self, step: int) -> None:
        self.step, self.number = step, 0

    def prepare(self, supernet: Any, batch: Any) -> Any:
        if supernet.training:
            with self.file.open("a") as lines:
                lines.write(json.dumps([self.step, self.number, batch.sample_ids]) + "\n")
            if self.kill_at == [self.step, self.number]:
                os.kill(os.getpid(), signal.SIGKILL)
            self.number += 1
        return super().prepare(supernet, batch)


class StoppingSampler:
    """Tells the objective which step begins; sends SIGTERM at the start of one."""

    def __init__(self, inner: Any, objective: WrittenObjective, stop_at: int | None) -> None:
        self.inner, self.objective, self.stop_at = inner, objective, stop_at

    def next(self, step: int, previous: Any) -> Any:
        self.objective.begin(step)
        if step == self.stop_at:
            os.kill(os.getpid(), signal.SIGTERM)
        return self.inner.next(step, previous)


def config_of(options: dict[str, Any]) -> PretrainConfig:
    """Returns the configuration of a run: ``stage``, ``precision`` and changed fields."""
    training = {
        "num_steps": STEPS,
        "rows_per_step": ROWS_PER_STEP,
        "rows_per_micro_batch": ROWS,
        "evaluate_every": 10,
        "checkpoint_every": 100,
        **options.get("training", {}),
    }
    config = configuration(options["stage"], options.get("precision", "fp32"), 1, **training)
    if "learning_rate" in options:
        rate = replace(config.optimizer, learning_rate=options["learning_rate"])
        config = replace(config, optimizer=rate)
    return config


def one_start(
    rank: int,
    ranks: Ranks,
    folder: Path,
    options: dict[str, Any],
    *,
    stop_at: int | None = None,
    kill_at: Sequence[int] | None = None,
) -> tuple[str, str]:
    """Trains from the newest checkpoint on; returns how it ended and a digest of the weights."""
    config = config_of(options)
    torch.manual_seed(1)
    kind = ToySupernet if options.get("without_dropout") else DropoutSupernet
    supernet = kind(toy_space(options.get("num_layers", 3)))
    scramble_global_generators()
    folder.mkdir(parents=True, exist_ok=True)
    objective = WrittenObjective(folder / f"samples-{rank}-of-{ranks.num_ranks}.jsonl", kill_at)
    inner = build_sampler(config.sampling, supernet.space, seed=config.training.seed)
    anchors = build_anchor_policy(config.alignment, supernet.space, seed=3)
    parts = Parts(
        objective,
        EpochSource(config.training.rows_per_step),
        StoppingSampler(inner, objective, stop_at if rank == ranks.num_ranks - 1 else None),
        anchors if config.alignment.enabled else None,
    )
    sections = Sections(config.training, config.optimizer, config.alignment)
    facts = {"data": options.get("data", "toy")}
    outcome = train(config, sections, folder, supernet, parts, facts, ranks)
    return outcome.ending, digest_of_weights(supernet.state_dict())


def scramble_global_generators() -> None:
    """Brings every global generator into a state that no other start has."""
    seed = int.from_bytes(os.urandom(4))
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def digest_of_weights(weights: dict[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name, value in sorted(weights.items()):
        digest.update(name.encode() + value.double().numpy().tobytes())
    return digest.hexdigest()


# --- the oracle -------------------------------------------------------------------------------


def oracle(folder: Path) -> list[str]:
    """Returns what every step did, one line each; a step made twice counts twice."""
    lines = []
    for row in read_metrics(folder):
        if row["kind"] in ("train", "valid", "anchor"):
            kept = {n: v for n, v in row.items() if n not in ("time", "tokens_per_second")}
            lines.append(json.dumps({name: hexed(value) for name, value in kept.items()}))
    samples = samples_of(folder)
    lines += [f"samples {step} {digest}" for step, digest in samples.items()]
    return sorted(lines)


def hexed(value: Any) -> Any:
    """Writes floats so that no digit is lost or rounded."""
    return value.hex() if isinstance(value, float) else value


def samples_of(folder: Path) -> dict[int, str]:
    """Returns a digest of each step's samples, in the global order of its micro-batches.

    A step that was begun anew after a kill counts as the last start made it.
    """
    found: dict[int, dict[int, list[int]]] = {}
    files = sorted(folder.glob("samples-*.jsonl"), key=lambda file: file.stat().st_mtime)
    for file in files:
        rank, num_ranks = (int(word) for word in file.stem.split("-")[1::2])
        for line in file.read_text().splitlines():
            step, number, ids = json.loads(line)
            found.setdefault(step, {})[number * num_ranks + rank] = ids
    return {
        step: hashlib.sha256(json.dumps(sorted(micro.items())).encode()).hexdigest()[:16]
        for step, micro in sorted(found.items())
    }


def first_difference(expected: Sequence[str], found: Sequence[str]) -> str | None:
    """Returns the first line that two oracles do not share."""
    if list(expected) == list(found):
        return None
    lines = sorted(set(expected) ^ set(found), key=step_of)
    return lines[0][:200] if lines else "a step was made twice"


def step_of(line: str) -> int:
    return int(line.split()[1]) if line.startswith("samples") else int(json.loads(line)["step"])


# --- what the ranks do ------------------------------------------------------------------------


def one_run(rank: int, num_ranks: int, folder: Path, arguments: Any) -> tuple[str, str]:
    """One start of one run, perhaps stopped at a step, or killed within its accumulation."""
    is_last = rank == num_ranks - 1
    with defence_removed(arguments.get("without")):
        return one_start(
            rank,
            join_process_group(),
            folder / "run",
            arguments,
            stop_at=arguments.get("stop_at"),
            kill_at=arguments.get("kill_at") if is_last else None,
        )


def stop_and_go(rank: int, num_ranks: int, folder: Path, arguments: Any) -> list[Any]:
    """For every cell: one whole run, and one that is stopped at each of some steps."""
    ranks = join_process_group()
    results = []
    for number, cell in enumerate(arguments["cells"]):
        place = folder / f"cell-{number}"
        with defence_removed(arguments.get("without")):
            _, whole = one_start(rank, ranks, place / "whole", cell)
            stops = [
                one_start(rank, ranks, place / "cut", cell, stop_at=step)[0]
                for step in arguments["stops"]
            ]
            _, last = one_start(rank, ranks, place / "cut", cell)
        ranks.barrier()
        lines = oracle(place / "whole"), oracle(place / "cut")
        difference = first_difference(*lines) or (None if whole == last else "the weights")
        results.append({"stops": stops.count("interrupted"), "difference": difference})
    return results


def starts(rank: int, num_ranks: int, folder: Path, arguments: Any) -> list[str]:
    """Some starts of one run, each with options of its own; what each of them ended with."""
    ranks = join_process_group()
    endings = []
    for options in arguments["starts"]:
        with defence_removed(arguments.get("without")):
            endings.append(ending_of(rank, ranks, folder / "run", options))
        ranks.barrier()
    return endings


def ending_of(rank: int, ranks: Ranks, folder: Path, options: dict[str, Any]) -> str:
    """Starts a run; returns how it ended, or the message with which it was refused."""
    try:
        return one_start(rank, ranks, folder, options, stop_at=options.get("stop_at"))[0]
    except UserError as error:
        return str(error)


def missing_pieces(rank: int, num_ranks: int, folder: Path, arguments: Any) -> list[Any]:
    """Takes each file of a checkpoint away: of the newest one, and of every one there is."""
    ranks = join_process_group()
    options = {"stage": 1, "training": {"checkpoint_every": 4, "num_steps": 8}}
    with defence_removed(arguments.get("without")):
        one_start(rank, ranks, folder / "whole", options)
        names = sorted(path.name for path in (folder / "whole/checkpoints/step-8").iterdir())
        return [
            lose_a_file(rank, ranks, folder, options, name, steps)
            for name in names[: arguments["most"]]
            for steps in ([8], [8, 4])
        ]


def lose_a_file(
    rank: int, ranks: Ranks, folder: Path, options: dict[str, Any], name: str, steps: list[int]
) -> dict[str, Any]:
    """Removes one file of some checkpoints from a copy of a run, and starts that."""
    copy = folder / f"{name}-{len(steps)}"
    if ranks.is_first:
        shutil.copytree(folder / "whole", copy)
        for step in steps:
            (copy / f"checkpoints/step-{step}" / name).unlink()
    ranks.barrier()
    logged: list[str] = []
    with listening(logged):
        ending = ending_of(rank, ranks, copy, options)
    ranks.barrier()
    made = [row["step"] for row in read_metrics(copy) if row["kind"] == "train"]
    return {
        "file": name,
        "steps": steps,
        "ending": ending,
        "named": any(name in line for line in [*logged, ending]),
        "made again": made[8:],
    }


@contextmanager
def listening(lines: list[str]) -> Iterator[None]:
    """Collects what the program logs."""
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("magicbert")
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)


@contextmanager
def defence_removed(name: str | None) -> Iterator[None]:
    """Takes one part out of the product, for a mutant."""
    if name is None:
        yield
        return
    owner, attribute, replacement = MUTATIONS[name]
    original = getattr(owner, attribute)
    setattr(owner, attribute, replacement)
    try:
        yield
    finally:
        setattr(owner, attribute, original)


class WithoutMoments(resuming.RankState):  # type: ignore[misc]
    """State whose moments are lost on the way."""

    def __iter__(self) -> Iterator[str]:
        return (key for key in super().__iter__() if key.endswith(":master"))

    def __getitem__(self, key: str) -> Tensor:
        if not key.endswith(":master"):
            raise KeyError(key)
        return super().__getitem__(key)


class FirstShardOnly(resuming.RankState):  # type: ignore[misc]
    """State that a rank takes from the shard of its number, whatever is in it."""

    def __getitem__(self, key: str) -> Tensor:
        name = self._keys[key]
        value = self.shards[0].tensor(key)
        if value.ndim == 0:
            return value
        flat = torch.zeros(self.wanted.groups[name].length)
        flat[: len(value)] = value[: len(flat)]
        return flat


def newest_or_none(self: CheckpointStore) -> Any:
    """Begins anew where no checkpoint verifies, as others do."""
    try:
        return NEWEST(self)
    except UserError:
        return None


NEWEST = CheckpointStore.newest
MUTATIONS: dict[str, tuple[Any, str, Any]] = {
    "keyed dropout": (TrainingLoop, "seed_dropout", lambda *_: None),
    "moments": (resuming, "RankState", WithoutMoments),
    "cutting anew": (resuming, "RankState", FirstShardOnly),
    "identity": (RunIdentity, "check", lambda *_: None),
    "verification": (store, "first_problem", lambda *_: None),
    "refusal to begin anew": (CheckpointStore, "newest", newest_or_none),
}
