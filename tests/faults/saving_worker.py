"""What forked ranks run when only the saving of checkpoints is under test: no engine, no steps."""

from __future__ import annotations

import os
import signal
import time
import uuid
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from magicbert.errors import UserError
from magicbert.records import write_record
from magicbert.training.checkpoints import CheckpointStore, ShardData
from magicbert.training.checkpoints import store as store_module
from magicbert.training.checkpoints.layout import GroupLayout, Layout
from magicbert.training.checkpoints.manifest import shard_name
from magicbert.training.checkpoints.retention import Retention
from magicbert.training.checkpoints.store import STATE, STATE_SCHEMA
from magicbert.training.path_sparse.placement import Piece
from magicbert.training.path_sparse.state import MASTER
from magicbert.training.ranks import Ranks

NUM_VALUES = 4000


class InPlaceStore(CheckpointStore):
    """A mutant: files get their final names at once and nothing lists them, as in plain saving."""

    def save(self, step: int, state: Any, shard: ShardData | None) -> None:
        folder = self.root / f"step-{step}"
        folder.mkdir(parents=True, exist_ok=True)
        assert shard is not None
        shard.write(folder / shard_name(self.ranks.rank))
        if self.ranks.is_first:
            write_record(folder / STATE, STATE_SCHEMA, state)
        self.ranks.barrier()
        if self.ranks.is_first:
            self.retention.verified.add(step)
            self.retention.apply(step)


class EagerRetentionStore(CheckpointStore):
    """A mutant: makes room before it saves, as accelerate's ``total_limit`` does."""

    def save(self, step: int, state: Any, shard: ShardData | None) -> None:
        if self.ranks.is_first:
            for old in self.steps()[self.retention.keep - 1 :]:
                self.retention._discard(old)
        self.ranks.barrier()
        super().save(step, state, shard)


STORES = {"": CheckpointStore, "in place": InPlaceStore, "eager": EagerRetentionStore}


def join(rank: int, num_ranks: int, folder: Path) -> Ranks:
    """Joins the ranks of a trial through a file; no port is taken."""
    method = f"file://{folder / 'rendezvous'}"
    dist.init_process_group("gloo", init_method=method, rank=rank, world_size=num_ranks)
    return Ranks.of_process_group()


def shard_of(step: int, rank: int, num_values: int = NUM_VALUES) -> ShardData:
    """Returns tensors that tell step and rank."""
    values = torch.arange(num_values, dtype=torch.float32) + 1000 * step + rank
    piece = Piece(parameter=0, start=rank * num_values, length=num_values, offset=0)
    layout = Layout({"body": GroupLayout(num_values, ("weight",), (piece,))})
    return ShardData({f"body:{MASTER}": values}, layout)


def save_steps(rank: int, num_ranks: int, folder: Path, arguments: Any) -> list[str]:
    """Saves some steps; returns, per step, what went wrong ('' = it was saved).

    ``arguments``: ``steps``; ``root``; ``keep``; ``mutant``; ``stop`` = a rank that stops itself
    before the last step, so that a tracer can take hold of it; ``num_values``.
    """
    ranks = join(rank, num_ranks, folder)
    if arguments.get("mutant") == "no wait":
        forget_to_wait()
    without_sweep(arguments)
    kind = STORES.get(arguments.get("mutant", ""), CheckpointStore)
    store = kind(Path(arguments["root"]), ranks, arguments.get("keep", 2))
    store.open()
    problems = []
    for step in arguments["steps"]:
        if rank == arguments.get("stop") and step == arguments["steps"][-1]:
            uuid.uuid4()  # reads the system's random numbers once
            os.kill(os.getpid(), signal.SIGSTOP)
        shard = shard_of(step, rank, arguments.get("num_values", NUM_VALUES))
        try:
            store.save(step, {"step": step}, shard)
            problems.append("")
        except UserError as error:
            problems.append(str(error))
    return problems


def forget_to_wait() -> None:
    """A mutant: a rank speaks for all of them."""
    Ranks.gather = lambda self, value, *rest, **more: [value]  # type: ignore[method-assign]
    Ranks.raise_together = lambda self, problem, *rest, **more: None  # type: ignore[method-assign]


def without_sweep(arguments: Any) -> None:
    """A mutant: what killed runs left aside stays."""
    if arguments.get("mutant") == "no sweep":
        Retention.sweep = lambda self: None  # type: ignore[method-assign]


def load_newest(rank: int, num_ranks: int, folder: Path, arguments: Any) -> int:
    """Opens the folder as a starting run does; returns the step that it would go on from."""
    without_sweep(arguments)
    store = CheckpointStore(Path(arguments["root"]), join(rank, num_ranks, folder), 2)
    store.open()
    checkpoint = store.newest()
    if checkpoint is None:
        return 0
    found = checkpoint.shard(rank).tensor(f"body:{MASTER}")
    expected = shard_of(checkpoint.step, rank).tensors[f"body:{MASTER}"]
    return checkpoint.step if torch.equal(found, expected) else -checkpoint.step


def save_in_little_room(rank: int, num_ranks: int, folder: Path, arguments: Any) -> list[Any]:
    """Saves thrice into each of some small disks: with room, with little room, with room again.

    ``arguments``: ``cases``: ``[root, free bytes in the second save]``; ``num_values``;
    ``without``: ``room check`` and ``sweep`` can be taken out. Returns per disk what went wrong in
    each save and what stood there after it.
    """
    ranks = join(rank, num_ranks, folder)
    without = arguments.get("without", [])
    if "room check" in without:
        store_module.shortage = lambda folder, num_bytes: None
    if "sweep" in without:
        Retention.sweep = lambda self: None  # type: ignore[method-assign]
    found = []
    for root, free in arguments["cases"]:
        store = CheckpointStore(Path(root) / "checkpoints", ranks, 2)
        store.open()
        saves = []
        for step in (2, 4, 6):
            if ranks.is_first and step == 4:
                fill(Path(root), free)
            ranks.barrier()
            saves.append(save_once(store, step, arguments["num_values"]))
            ranks.barrier()
            if ranks.is_first and step == 4:
                (Path(root) / "filler").unlink()
            ranks.barrier()
        found.append(saves)
    return found


def save_once(store: CheckpointStore, step: int, num_values: int = NUM_VALUES) -> Any:
    """Saves; returns what went wrong, the names that stand there then, and the seconds."""
    start = time.monotonic()
    problem = ""
    try:
        store.save(step, {"step": step}, shard_of(step, store.ranks.rank, num_values))
    except UserError as error:
        problem = str(error)
    seconds = time.monotonic() - start
    store.ranks.barrier()
    return [problem, sorted(path.name for path in store.root.iterdir()), seconds]


def fill(folder: Path, free: int) -> None:
    """Leaves some free bytes on a disk."""
    status = os.statvfs(folder)
    with (folder / "filler").open("wb") as stream:
        stream.write(bytes(max(status.f_bavail * status.f_frsize - free, 0)))


def save_with_errors(rank: int, num_ranks: int, folder: Path, arguments: Any) -> list[Any]:
    """Saves steps 1, 2, ... while faults come from outside; returns what came of each."""
    ranks = join(rank, num_ranks, folder)
    if arguments.get("mutant") == "no wait":
        forget_to_wait()
    store = CheckpointStore(Path(arguments["root"]), ranks, 3)
    store.open()
    steps = range(1, arguments["num_steps"] + 1)
    return [save_once(store, step) for step in steps]
