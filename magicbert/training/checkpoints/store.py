"""The checkpoints of one stage: publish, find the newest that verifies, keep the last few."""

from __future__ import annotations

import logging
import re
import shutil
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from magicbert.records import read_record, write_record
from magicbert.training.checkpoints.manifest import (
    describe_file,
    problem_of,
    sync_folder,
    write_manifest,
)
from magicbert.training.ranks import AgreedError, Ranks

LOGGER = logging.getLogger("magicbert")
STATE = "state.json"
STATE_SCHEMA = "magicbert/training-state/1"
FOLDER_NAME = re.compile(r"step-(\d+)")
ABSENT = -1


@dataclass(frozen=True)
class Checkpoint:
    """A published checkpoint.

    Attributes:
        folder: ``step-N``.
        step: optimizer steps made.
        state: JSON data of the loop.
    """

    folder: Path
    step: int
    state: dict[str, Any]

    def tensors(self, shard: int) -> dict[str, Tensor]:
        """Returns the tensors of one rank's shard."""
        tensors: dict[str, Tensor] = load_file(self.folder / shard_name(shard))
        return tensors


class CheckpointStore:
    """Writes and reads ``step-N/`` folders; every method is called by all ranks.

    A checkpoint is written aside, verified by its manifest, and renamed: there is no pointer
    file, and a reader takes the newest folder that verifies.

    Args:
        root: the stage's ``checkpoints/`` folder, seen by all ranks.
        ranks: all ranks.
        keep: checkpoints kept; older ones go once a newer one verifies.
    """

    def __init__(self, root: Path, ranks: Ranks, keep: int) -> None:
        self.root = root
        self.ranks = ranks
        self.keep = keep

    def save(self, step: int, state: Mapping[str, Any], shard: Mapping[str, Tensor] | None) -> None:
        """Publishes a checkpoint, or leaves none behind.

        Args:
            step: optimizer steps made.
            state: JSON data of the loop, the same on every rank.
            shard: this rank's tensors; ``None`` if it has none of its own.

        Raises:
            AgreedError: some rank could not write.
        """
        token = self.ranks.from_first(uuid.uuid4().int >> 80)
        aside = self.root / f"step-{step}.tmp-{token:012x}"
        entries, problem = self._write_part(aside, state, shard)
        try:
            self.ranks.raise_together(problem)
            parts = self.ranks.gather(entries)
            self.ranks.raise_together(
                self._publish(aside, step, [e for part in parts for e in part])
            )
        except AgreedError:
            if self.ranks.is_first:
                shutil.rmtree(aside, ignore_errors=True)
            raise

    def _write_part(
        self, aside: Path, state: Mapping[str, Any], shard: Mapping[str, Tensor] | None
    ) -> tuple[list[dict[str, Any]], str | None]:
        """Writes this rank's files; returns their entries and what went wrong."""
        paths = []
        try:
            aside.mkdir(parents=True, exist_ok=True)
            if shard is not None:
                paths.append(aside / shard_name(self.ranks.rank))
                tensors = {name: value.cpu().contiguous() for name, value in shard.items()}
                save_file(tensors, paths[-1])
            if self.ranks.is_first:
                paths.append(aside / STATE)
                write_record(paths[-1], STATE_SCHEMA, dict(state))
            return [describe_file(path) for path in paths], None
        except (OSError, SafetensorError) as error:
            return [], f"the checkpoint could not be written to {aside}: {error}"

    def _publish(self, aside: Path, step: int, entries: list[dict[str, Any]]) -> str | None:
        """Writes the manifest, verifies, renames, drops old ones; on the first rank only."""
        if not self.ranks.is_first:
            return None
        target = self.root / f"step-{step}"
        try:
            write_manifest(aside, entries, step)
            problem = problem_of(aside)
            if problem is not None:
                return f"the checkpoint {target} did not verify after it was written: {problem}"
            if target.exists():
                shutil.rmtree(target)
            aside.rename(target)
            sync_folder(self.root)
            self._drop_old(step)
        except OSError as error:
            return f"the checkpoint {target} could not be published: {error}"
        return None

    def _drop_old(self, newest: int) -> None:
        """Deletes all but the last checkpoints, and whatever killed runs left aside."""
        older = [step for step in self.steps() if step <= newest]
        for step in older[self.keep :]:
            shutil.rmtree(self.root / f"step-{step}", ignore_errors=True)
        for leftover in self.root.glob("step-*.tmp-*"):
            shutil.rmtree(leftover, ignore_errors=True)

    def steps(self) -> list[int]:
        """Returns the steps of the published checkpoints, newest first."""
        if not self.root.is_dir():
            return []
        matches = (FOLDER_NAME.fullmatch(path.name) for path in self.root.iterdir())
        return sorted((int(match[1]) for match in matches if match), reverse=True)

    def newest(self) -> Checkpoint | None:
        """Returns the newest checkpoint that verifies; says which were passed over, and why."""
        chosen = self.ranks.from_first(self._choose() if self.ranks.is_first else ABSENT)
        if chosen == ABSENT:
            return None
        folder = self.root / f"step-{chosen}"
        return Checkpoint(folder, chosen, read_record(folder / STATE, STATE_SCHEMA))

    def _choose(self) -> int:
        for step, problem in self._examined():
            if problem is None:
                return step
            LOGGER.warning("skipping the checkpoint of step %d: %s", step, problem)
        return ABSENT

    def _examined(self) -> Iterator[tuple[int, str | None]]:
        for step in self.steps():
            yield step, problem_of(self.root / f"step-{step}")


def shard_name(rank: int) -> str:
    """Returns the file of one rank's tensors."""
    return f"shard-{rank:05d}.safetensors"
