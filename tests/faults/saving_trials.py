"""Trials in which ranks save a few checkpoints and one of them is killed at a chosen point."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from forked_ranks import Trial, num_firings, rank_server
from safetensors import SafetensorError
from safetensors.torch import load_file
from saving_worker import shard_of
from strace_kill import Tracer, crash_points, wait_until

from magicbert.training.checkpoints.manifest import problem_of, shard_name
from magicbert.training.checkpoints.retention import published_steps

NUM_RANKS = 2
STEPS = (2, 4)
KILLED = -9
NAMED_POINTS = (
    "save.shard.before", "save.shard.written", "save.shard.synced", "save.state.before",
    "save.state.written", "save.manifest.before", "save.manifest.written", "save.rename.before",
    "save.rename.after", "save.retention.before", "save.retention.after",
)  # fmt: skip


@dataclass(frozen=True)
class Saving:
    """Where and how two ranks save.

    Attributes:
        folder: of all trials.
        keep: checkpoints kept.
        steps: steps saved; the fault is in the last one.
        mutant: defence taken out, as `saving_worker` names it.
    """

    folder: Path
    keep: int = 1
    steps: Sequence[int] = STEPS
    mutant: str = ""

    def start(self, name: str, *, stop: int | None = None, faults: str = "") -> tuple[Path, Trial]:
        """Starts the ranks of one trial; returns the folder of its checkpoints too."""
        root = self.folder / name / "checkpoints"
        arguments = {
            "steps": list(self.steps), "root": str(root), "keep": self.keep,
            "stop": stop, "mutant": self.mutant,
        }  # fmt: skip
        work = "saving_worker:save_steps"
        trial = rank_server().start(
            work, NUM_RANKS, self.folder / name / "ranks", arguments, faults=faults
        )
        return root, trial

    def points(self, rank: int) -> list[tuple[str, int]]:
        """Lists the system calls of a save on one rank."""
        root, trial = self.start(f"look-{rank}", stop=rank)
        trace = self.folder / f"trace-{rank}"
        tracer = Tracer(trial.pids[rank], trace)
        trial.results()
        tracer.close()
        return [point for point in crash_points(trace, root) if point[0] != "close"]

    def kill_at_call(self, rank: int, call: str, number: int) -> tuple[Path, bool]:
        """Kills a rank at a system call and the others with it; was it killed?"""
        name = f"{rank}-{call}-{number}"
        root, trial = self.start(name, stop=rank)
        pid = trial.pids[rank]
        inject = f"{call}:signal=SIGKILL:when={number}"
        tracer = Tracer(pid, self.folder / f"trace-{name}", inject)
        wait_until(lambda: trial.codes()[rank] is not None, "the rank neither ends nor dies")
        tracer.close()
        has_fired = trial.codes()[rank] == KILLED
        trial.kill()
        trial.wait(10)
        return root, has_fired

    def kill_at_point(self, rank: int, point: str) -> tuple[Path, bool]:
        """Kills a rank at a named fault point and the others with it."""
        name = f"{rank}-{point}"
        step = self.steps[0 if "retention" in point else -1]
        root, trial = self.start(name, faults=f"{point}=kill@rank:{rank},step:{step}")
        wait_until(lambda: trial.codes()[rank] is not None, "the rank neither ends nor dies")
        trial.kill()
        trial.wait(10)
        return root, num_firings(trial.folder) == 1


def verified_steps(root: Path) -> list[int]:
    """Returns the steps that a start could go on from, newest first."""
    return [step for step in published_steps(root) if problem_of(root / f"step-{step}") is None]


def is_whole(root: Path, step: int) -> bool:
    """Compares every rank's tensors with what was saved."""
    for rank in range(NUM_RANKS):
        try:
            found = load_file(root / f"step-{step}" / shard_name(rank))
        except (OSError, SafetensorError):
            return False
        expected = shard_of(step, rank).tensors
        if found.keys() != expected.keys():
            return False
        if not all(torch.equal(found[name], value) for name, value in expected.items()):
            return False
    return True


def chosen_step(root: Path, mutant: str) -> int:
    """Returns the step that is gone on from: the newest that verifies; a mutant trusts names."""
    steps = published_steps(root) if mutant == "in place" else verified_steps(root)
    return steps[0] if steps else 0


def is_good(root: Path, mutant: str = "", steps: Sequence[int] = STEPS) -> bool:
    """Whether one of the last two checkpoints is chosen, and is whole."""
    step = chosen_step(root, mutant)
    return step in steps[-2:] and is_whole(root, step)


def recovers(root: Path, folder: Path, mutant: str = "") -> bool:
    """Starts again on real ranks: loads what is chosen, sweeps, and saves the step anew."""
    server = rank_server()
    work, where = "saving_worker:load_newest", {"root": str(root)}
    loaded = server.start(work, NUM_RANKS, folder / "load", where | {"mutant": mutant})
    if loaded.results() != [chosen_step(root, "")] * NUM_RANKS:
        return False
    arguments = {"steps": [STEPS[-1]], "root": str(root), "keep": 1, "mutant": mutant}
    again = server.start("saving_worker:save_steps", NUM_RANKS, folder / "again", arguments)
    names = [path.name for path in root.iterdir()] if again.results() == [[""]] * 2 else []
    return names == [f"step-{STEPS[-1]}"] and is_whole(root, STEPS[-1])


def every(items: Sequence[tuple[str, int]], most: int | None) -> Iterator[tuple[str, int]]:
    """Yields all items, or some that are spread evenly."""
    stride = 1 if most is None else max(1, -(-len(items) // most))
    yield from items[::stride]
