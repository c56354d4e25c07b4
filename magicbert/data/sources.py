"""``corpus.sources`` -> the units that are read from start to end."""

from __future__ import annotations

import glob
import os
import platform
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from magicbert.data.skipping import LINKED_FOLDER, UNKNOWN_KIND, Skips
from magicbert.errors import UserError
from magicbert.records import file_digest

Kind = Literal["text", "jsonl", "parquet", "hub", "embedded"]

COMPRESSIONS = (".gz", ".xz", ".zst")
KINDS: dict[str, Kind] = {
    ".txt": "text",
    ".text": "text",
    ".md": "text",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".parquet": "parquet",
}
VARIABLE = re.compile(r"\$(?:(\w+)|\{(\w+)\})")


@dataclass(frozen=True, slots=True)
class CorpusUnit:
    """One file, one hub data set, or the embedded text.

    Attributes:
        kind: how it is read.
        name: as the user wrote it, environment variables not replaced; for messages and records.
        path: the file; ``hf:`` and embedded units have none and repeat their name.
        compression: ``.gz``, ``.xz``, ``.zst`` or empty.
    """

    kind: Kind
    name: str
    path: str
    compression: str = ""

    def identity(self, known: dict[str, Any] | None = None) -> dict[str, Any]:
        """Returns plain data that changes when the content changes.

        Args:
            known: an earlier identity; its digest is taken over when size and time agree.
        """
        if self.kind == "hub":
            return {"name": self.name}
        if self.kind == "embedded":
            version = f"{platform.python_implementation()} {platform.python_version()}"
            return {"name": self.name, "interpreter": version}
        status = os.stat(self.path)
        stamp = {
            "name": self.name,
            "num_bytes": status.st_size,
            "modified_nanoseconds": status.st_mtime_ns,
        }
        if known is not None and all(known.get(key) == value for key, value in stamp.items()):
            return known
        return stamp | {"sha256": file_digest(Path(self.path))}


def resolve_sources(sources: Sequence[str], skips: Skips) -> list[CorpusUnit]:
    """Returns the units of all sources, in the order given; folders and globs sorted by name.

    A folder gives its files of a known kind, at any depth; others are counted as skipped. A file
    named by itself or by a glob is text unless its suffix says otherwise.

    Raises:
        UserError: a source is missing, or a folder or glob holds nothing to read.
    """
    return [unit for source in sources for unit in _resolve(source, skips)]


def _resolve(source: str, skips: Skips) -> list[CorpusUnit]:
    if source == "embedded":
        return [CorpusUnit("embedded", source, source)]
    if source.startswith("hf:"):
        return [CorpusUnit("hub", source, source)]
    path = Path(_expand(source)).expanduser()
    if path.is_dir():
        units = list(_folder_units(source, path, skips))
        if not units:
            raise UserError(f"{source}: no {', '.join(KINDS)} file in this folder")
        return units
    if path.exists():
        return [_file_unit(source, str(path))]
    if glob.has_magic(str(path)):
        found = [
            name for name in sorted(glob.glob(str(path), recursive=True)) if Path(name).is_file()
        ]
        if found:
            return [_file_unit(_unexpand(source, name), name) for name in found]
        raise UserError(f"{source}: no file matches")
    raise UserError(f"{source}: no such file or folder (in corpus.sources or valid_sources)")


def _folder_units(source: str, folder: Path, skips: Skips) -> Iterator[CorpusUnit]:
    found = []
    for parent, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in folders:
            if Path(parent, name).is_symlink():  # not followed: it may lead back here
                inner = Path(parent, name).relative_to(folder).as_posix()
                skips.add(LINKED_FOLDER, f"{source.rstrip('/')}/{inner}")
        found += [Path(parent, name) for name in files if not name.startswith(".")]
    for file in sorted(found, key=lambda path: path.relative_to(folder).as_posix()):
        name = f"{source.rstrip('/')}/{file.relative_to(folder).as_posix()}"
        if _suffixes(file)[0] in KINDS:
            yield _file_unit(name, str(file))
        else:
            skips.add(UNKNOWN_KIND, name)


def _file_unit(name: str, path: str) -> CorpusUnit:
    if not os.access(path, os.R_OK):
        state = "cannot be read (permissions)" if os.path.exists(path) else "broken link"
        raise UserError(f"{name}: {state}")
    suffix, compression = _suffixes(Path(path))
    return CorpusUnit(KINDS.get(suffix, "text"), name, path, compression)


def _suffixes(path: Path) -> tuple[str, str]:
    """Returns the suffix that tells the kind and the one that tells the compression."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    compression = suffixes.pop() if suffixes and suffixes[-1] in COMPRESSIONS else ""
    return (suffixes[-1] if suffixes else ""), compression


def _expand(source: str) -> str:
    """Replaces ``$NAME``; an unset variable is an error instead of staying as it is."""
    for match in VARIABLE.finditer(source):
        if (match[1] or match[2]) not in os.environ:
            raise UserError(f"{source}: the environment variable {match[0]} is not set")
    return os.path.expandvars(source)


def _unexpand(source: str, path: str) -> str:
    """Puts a leading variable back, so that records do not hold the paths of one machine."""
    match = VARIABLE.match(source)
    return path.replace(os.environ[match[1] or match[2]], match[0], 1) if match else path
