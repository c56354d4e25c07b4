"""The record of a target: a row per case, written after each, so that a cut run goes on."""

from __future__ import annotations

import hashlib
import importlib.util
import platform
import re
from collections.abc import Iterable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

import magicbert
from magicbert.bench.machine import describe_machine, package_versions
from magicbert.bench.registry import Case, case_key
from magicbert.errors import UserError
from magicbert.records import read_record, write_record
from magicbert.trail import current_commit

SCHEMA = "magicbert/bench-suite/1"
UNIT = "microseconds of one call, median over rounds with its 95% interval"
# A change here makes old rows worthless, a change elsewhere does not.
MEASURED_ROOMS = ("bench", "bert", "config", "data", "space", "supernet", "training")
DECISIVE = ("target", "code_sha256", "device", "machine", "versions", "setting")
PEER_PACKAGES = (
    "liger-kernel", "flash-linear-attention", "fla-core", "flash-attn", "apex",
    "cut-cross-entropy", "causal-conv1d",
)  # fmt: skip


def new_record(target: str, device: torch.device, setting: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a record without rows.

    Args:
        target: such as ``kernels``.
        device: where it is measured.
        setting: what decides how a case is measured, not which cases are: rounds, seed, threads.
    """
    return {
        "target": target,
        "command": f"magicbert bench {target}",
        "commit": current_commit(),
        "code_sha256": sources_digest(),
        "device": describe_device(device),
        "machine": describe_machine(),
        "versions": {**package_versions(), **peer_versions()},
        "setting": dict(setting),
        "unit": UNIT,
        "rows": [],
    }


def open_record(
    file: Path, target: str, device: torch.device, setting: Mapping[str, Any]
) -> dict[str, Any]:
    """Returns the record so far; rows of other code, versions, machine or setting are left out."""
    record = new_record(target, device, setting)
    try:
        former = read_record(file, SCHEMA)
    except UserError:
        return record
    if all(former.get(name) == record[name] for name in DECISIVE):
        record["rows"] = former["rows"]
    return record


def missing(record: Mapping[str, Any], cases: Sequence[Case]) -> list[Case]:
    """Returns the cases that have no row yet, in their order."""
    found = {case_key(row["case"], row["variant"]) for row in record["rows"]}
    return [case for case in cases if case.key not in found]


def add_row(file: Path, record: dict[str, Any], row: dict[str, Any]) -> None:
    """Adds a row and writes the record."""
    record["rows"].append(row)
    write_record(file, SCHEMA, record)


def describe_device(device: torch.device) -> dict[str, Any]:
    """Returns what is measured: the GPU, or the processor with its threads."""
    if device.type != "cuda":
        capability = torch.backends.cpu.get_cpu_capability()
        return {"kind": "cpu", "capability": capability, "threads": torch.get_num_threads()}
    found = torch.cuda.get_device_properties(device)
    return {
        "kind": "cuda",
        "name": found.name,
        "capability": f"{found.major}.{found.minor}",
        "memory_bytes": found.total_memory,
        "multiprocessors": found.multi_processor_count,
        "cuda": torch.version.cuda,
    }


def device_slug(device: torch.device) -> str:
    """Returns a short name for files, such as ``cpu`` or ``h200``."""
    if device.type != "cuda":
        return device.type
    name = torch.cuda.get_device_name(device).lower().removeprefix("nvidia ")
    return re.sub(r"[^a-z0-9]+", "-", name).strip("-")


def peer_versions() -> dict[str, str]:
    """Returns the versions of the peers that are installed."""
    found = {}
    for name in PEER_PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def sources_digest() -> str:
    """Returns the sha256 of the sources that a measurement depends on."""
    package = Path(magicbert.__file__).parent
    folders = [package / room for room in MEASURED_ROOMS]
    kernels = importlib.util.find_spec("magicbert_kernels")
    if kernels is not None and kernels.origin is not None:
        folders.append(Path(kernels.origin).parent)
    return files_digest(folders)


def files_digest(folders: Iterable[Path]) -> str:
    """Returns the sha256 of names and contents of all sources and tables of some folders."""
    digest = hashlib.sha256(platform.python_version().encode())
    for folder in folders:
        for file in sorted([*folder.rglob("*.py"), *folder.rglob("*.json")]):
            digest.update(f"{folder.name}/{file.relative_to(folder)}".encode())
            digest.update(file.read_bytes())
    return digest.hexdigest()
