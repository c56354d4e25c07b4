"""The manifest of a checkpoint: what it is, and every file with size and sha256; written last."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from magicbert.errors import UserError
from magicbert.records import file_digest, read_record, sync, write_record
from magicbert.training.checkpoints.fields import FormatError, take, take_whole

MANIFEST, STATE = "manifest.json", "state.json"
SCHEMA = "magicbert/checkpoint/2"


@dataclass(frozen=True)
class FileEntry:
    """One file of a checkpoint.

    Attributes:
        name: without a folder.
        size: bytes.
        sha256: of its bytes, in hexadecimal.
    """

    name: str
    size: int
    sha256: str

    @classmethod
    def of(cls, path: Path) -> FileEntry:
        """Describes a file as it is read back."""
        return cls(path.name, path.stat().st_size, file_digest(path))

    @classmethod
    def parse(cls, data: Any) -> FileEntry:
        """Reads an entry of a manifest."""
        return cls(take(data, "name", str), take_whole(data, "size"), take(data, "sha256", str))

    def problem(self, folder: Path) -> str | None:
        """Returns how the file differs from the entry; ``None`` = not at all."""
        path = folder / self.name
        try:
            if path.is_symlink() or not path.is_file():
                return f"{self.name} is missing"
            if path.stat().st_size != self.size:
                return f"{self.name} has {path.stat().st_size} bytes, not {self.size}"
            if file_digest(path) != self.sha256:
                return f"{self.name} is damaged (its sha256 differs)"
        except OSError as error:
            return f"{self.name} cannot be read: {error.strerror}"
        return None


@dataclass(frozen=True)
class Origin:
    """What wrote a checkpoint.

    Attributes:
        zero_stage: DeepSpeed's stage.
        config_digest: of the configuration that must not change.
        data_digest: of the facts about data and space.
    """

    zero_stage: int = 0
    config_digest: str = ""
    data_digest: str = ""


@dataclass(frozen=True)
class Manifest:
    """A checkpoint's table of contents.

    Attributes:
        step: optimizer steps made.
        num_ranks: ranks that wrote it.
        origin: what wrote it.
        files: every other file, shards first.
    """

    step: int
    num_ranks: int
    origin: Origin
    files: tuple[FileEntry, ...]

    @property
    def num_shards(self) -> int:
        """Number of files with tensors: one per rank, or a single one at stage 0."""
        return len(self.files) - 1

    def write(self, folder: Path) -> None:
        """Writes the manifest of a folder whose other files stand."""
        files = [asdict(entry) for entry in self.files]
        facts = {"step": self.step, "num_ranks": self.num_ranks, **asdict(self.origin)}
        write_record(folder / MANIFEST, SCHEMA, {**facts, "files": files})
        sync(folder)

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """Reads the manifest of a folder named after its step.

        Raises:
            UserError: it is missing, damaged, or describes no checkpoint of that name.
        """
        path = folder / MANIFEST
        if folder.is_symlink() or path.is_symlink():
            raise FormatError("it is a symbolic link")
        if not path.exists():
            raise FormatError(f"{MANIFEST} is missing")
        data = read_record(path, SCHEMA)
        try:
            manifest = cls.parse(data)
            if folder.name.partition(".")[0] != f"step-{manifest.step}":
                raise FormatError(f"it is of step {manifest.step}")
        except FormatError as error:
            raise FormatError(f"{MANIFEST}: {error}") from error
        return manifest

    @classmethod
    def parse(cls, data: Any) -> Manifest:
        """Reads the payload of a manifest, every field checked."""
        num_ranks = take_whole(data, "num_ranks", 1)
        files = tuple(FileEntry.parse(entry) for entry in take(data, "files", list))
        check_names([entry.name for entry in files], num_ranks)
        origin = Origin(
            take_whole(data, "zero_stage"),
            take(data, "config_digest", str),
            take(data, "data_digest", str),
        )
        return cls(take_whole(data, "step"), num_ranks, origin, files)


def check_names(names: list[str], num_ranks: int) -> None:
    """Allows the state and one shard, or as many as ranks; no other name, none twice."""
    num_shards = len(names) - 1
    expected = [*(shard_name(number) for number in range(num_shards)), STATE]
    if num_shards not in (1, num_ranks) or names != expected:
        raise FormatError(f"files: expected {STATE} and 1 or {num_ranks} shards, found {names}")


def shard_name(number: int) -> str:
    """Returns the file of one rank's tensors."""
    return f"shard-{number:05d}.safetensors"


def first_problem(folder: Path, entries: Iterable[FileEntry]) -> str | None:
    """Returns the first thing that is wrong with some files."""
    return next(filter(None, (entry.problem(folder) for entry in entries)), None)


def problem_of(folder: Path) -> str | None:
    """Returns what is wrong with a checkpoint; ``None`` = every byte is as it was written."""
    try:
        return first_problem(folder, Manifest.read(folder).files)
    except UserError as error:
        return str(error)
