"""The checkpoints of one stage: publish, find the newest that verifies, keep the last few."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from magicbert.errors import UserError
from magicbert.faults import fault
from magicbert.records import read_record, sync, write_record
from magicbert.training.checkpoints.durable import ASIDE, claim, discard
from magicbert.training.checkpoints.free_space import shortage
from magicbert.training.checkpoints.manifest import (
    STATE,
    FileEntry,
    Manifest,
    Origin,
    first_problem,
    shard_name,
)
from magicbert.training.checkpoints.retention import Retention, published_steps
from magicbert.training.checkpoints.shard import Shard, ShardData
from magicbert.training.ranks import AgreedError, Ranks

LOGGER = logging.getLogger("magicbert")
STATE_SCHEMA = "magicbert/training-state/2"
# What writing a file can raise; safetensors has an error of its own for a full disk.
WRITE_ERRORS = (OSError, SafetensorError, RuntimeError)


@dataclass(frozen=True)
class Checkpoint:
    """A published checkpoint that verified.

    Attributes:
        folder: ``step-N``.
        manifest: its table of contents.
        state: JSON data of the loop.
    """

    folder: Path
    manifest: Manifest
    state: dict[str, Any]

    @property
    def step(self) -> int:
        """Optimizer steps made."""
        return self.manifest.step

    def shard(self, number: int) -> Shard:
        """Opens one rank's tensors."""
        return Shard(self.folder / shard_name(number))


class CheckpointStore:
    """Writes and reads ``step-N/`` folders; every method is called by all ranks.

    A checkpoint is written aside, verified by its manifest, and renamed: there is no pointer
    file, and a reader takes the newest folder that verifies.

    Args:
        root: the stage's ``checkpoints/`` folder, seen by all ranks.
        ranks: all ranks.
        keep: checkpoints kept; older ones go once a newer one verifies.
        origin: what the manifests say about the run.
    """

    def __init__(self, root: Path, ranks: Ranks, keep: int, origin: Origin | None = None) -> None:
        self.root = root
        self.ranks = ranks
        self.origin = origin or Origin()
        self.retention = Retention(root, keep)

    # --- saving ----------------------------------------------------------------------------

    def save(self, step: int, state: Mapping[str, Any], shard: ShardData | None) -> None:
        """Publishes a checkpoint, or leaves none behind.

        Args:
            step: optimizer steps made.
            state: JSON data of the loop, the same on every rank.
            shard: this rank's tensors; ``None`` if it has none of its own.

        Raises:
            AgreedError: some rank could not write.
        """
        token = self.ranks.from_first(uuid.uuid4().int >> 80)
        aside = self.root / f"step-{step}{ASIDE}{token:012x}"
        self._check_room(shard)
        try:
            entries, problem = self._write_part(aside, step, state, shard)
            self.ranks.raise_together(problem)
            manifest = self._write_manifest(aside, step, self.ranks.gather(entries))
            self._verify(aside, manifest, entries)
            self.ranks.raise_together(self._publish(aside, step))
        except AgreedError:
            if self.ranks.is_first:
                self.retention.sweep()
            raise

    def _check_room(self, shard: ShardData | None) -> None:
        """Asks whether the files of all ranks fit together."""
        num_bytes = sum(self.ranks.gather(shard.num_bytes if shard else 0))
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            problem = shortage(self.root, num_bytes)
        except OSError as error:
            problem = f"the checkpoint could not be written to {self.root}: {error}"
        self.ranks.raise_together(problem)

    def _write_part(
        self, aside: Path, step: int, state: Mapping[str, Any], shard: ShardData | None
    ) -> tuple[list[FileEntry], str | None]:
        """Writes this rank's files; returns their entries and what went wrong."""
        entries = []
        try:
            aside.mkdir(parents=True, exist_ok=True)
            if shard is not None:
                path = aside / shard_name(self.ranks.rank)
                fault("save.shard.before", step=step)
                shard.write(path)
                fault("save.shard.written", step=step)
                sync(path)
                fault("save.shard.synced", step=step)
                entries.append(FileEntry.of(path))
            if self.ranks.is_first:
                path = aside / STATE
                fault("save.state.before", step=step)
                write_record(path, STATE_SCHEMA, dict(state))
                fault("save.state.written", step=step)
                entries.append(FileEntry.of(path))
            return entries, None
        except WRITE_ERRORS as error:
            return [], f"the checkpoint could not be written to {aside}: {error}"

    def _write_manifest(
        self, aside: Path, step: int, parts: Sequence[Sequence[FileEntry]]
    ) -> Manifest:
        """Writes the manifest over all ranks' files on the first rank."""
        files = sorted((e for part in parts for e in part), key=lambda entry: entry.name)
        manifest = Manifest(step, self.ranks.num_ranks, self.origin, tuple(files))
        problem = None
        if self.ranks.is_first:
            try:
                fault("save.manifest.before", step=step)
                manifest.write(aside)
                fault("save.manifest.written", step=step)
            except WRITE_ERRORS as error:
                problem = f"the checkpoint could not be written to {aside}: {error}"
        self.ranks.raise_together(problem)
        return manifest

    def _verify(self, aside: Path, manifest: Manifest, entries: Sequence[FileEntry]) -> None:
        """Reads everything back: each rank its own files, the first one the manifest too."""
        problem = first_problem(aside, entries)
        if self.ranks.is_first and problem is None:
            try:
                has_changed = Manifest.read(aside) != manifest
                problem = (
                    "the manifest reads otherwise than it was written" if has_changed else None
                )
            except UserError as error:
                problem = str(error)
        if problem is not None:
            problem = f"the checkpoint in {aside} did not verify after it was written: {problem}"
        self.ranks.raise_together(problem)

    def _publish(self, aside: Path, step: int) -> str | None:
        """Gives a verified checkpoint its name, then drops old ones; on the first rank only."""
        if not self.ranks.is_first:
            return None
        target = self.root / f"step-{step}"
        try:
            fault("save.rename.before", step=step)
            if target.exists():
                discard(target)  # it did not verify, or this step would not be made again
            aside.rename(target)
            fault("save.rename.after", step=step)
            sync(self.root)
        except WRITE_ERRORS as error:
            return f"the checkpoint {target} could not be published: {error}"
        self.retention.apply(step)
        return None

    # --- loading ---------------------------------------------------------------------------

    def open(self) -> None:
        """Makes the folder ready at the start of a run; what killed runs left aside goes.

        Raises:
            AgreedError: the folder cannot be used.
        """
        problem = None
        if self.ranks.is_first:
            try:
                claim(self.root)
                self.retention.sweep()
            except UserError as error:
                problem = str(error)
        self.ranks.raise_together(problem)

    def steps(self) -> list[int]:
        """Returns the steps of the published checkpoints, newest first, whole or not."""
        return published_steps(self.root)

    def newest(self) -> Checkpoint | None:
        """Returns the newest checkpoint that verifies; says which were passed over, and why.

        Raises:
            AgreedError: there are checkpoints, and none verifies. Only an empty folder is a
                reason to begin anew.
        """
        passed_over = []
        for step in self.ranks.gather(self.steps() if self.ranks.is_first else None)[0]:
            folder = self.root / f"step-{step}"
            manifest, problem = self._examine(folder, step)
            if manifest is not None and problem is None:
                self.retention.verified.add(step)
                return Checkpoint(folder, manifest, read_record(folder / STATE, STATE_SCHEMA))
            passed_over.append(f"  - {folder.name}: {problem}")
            if self.ranks.is_first:
                LOGGER.warning("skipping the checkpoint of step %d: %s", step, problem)
        if passed_over:
            lines = "\n".join(passed_over)
            raise AgreedError(
                f"{self.root}: no checkpoint there verifies, and training does not begin anew by "
                f"itself:\n{lines}\nBring the files back, or delete the folder to train from the "
                "first step."
            )
        return None

    def _examine(self, folder: Path, step: int) -> tuple[Manifest | None, str | None]:
        """Verifies a checkpoint, its files shared out over the ranks."""
        manifest, problem = None, None
        if self.ranks.is_first:
            try:
                fault("load.verify", step=step)
                manifest = Manifest.read(folder)
            except (UserError, OSError) as error:
                problem = str(error)
        manifest, problem = self.ranks.gather((manifest, problem))[0]
        if manifest is None:
            return None, problem
        share = manifest.files[self.ranks.rank :: self.ranks.num_ranks]
        return manifest, next(filter(None, self.ranks.gather(first_problem(folder, share))), None)
