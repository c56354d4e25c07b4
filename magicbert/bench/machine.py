"""What a measurement must say about where it was made; nothing that names a user or a path."""

from __future__ import annotations

import hashlib
import os
import platform
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import magicbert
from magicbert.trail import describe_environment


def describe_machine() -> dict[str, Any]:
    """Returns processor, system and number of processors."""
    return {
        "processor": processor_name(),
        "processors": os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
    }


def processor_name() -> str:
    """Returns the name of the processor as the system tells it."""
    file = Path("/proc/cpuinfo")
    for line in file.read_text(encoding="utf-8").splitlines() if file.is_file() else ():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor()


def package_versions() -> dict[str, str]:
    """Returns the versions of Python and of the packages that are measured."""
    found = describe_environment()
    packages = {name: text for name, text in found["packages"].items() if text}
    return {"python": found["python"], **packages}


def code_digest(rooms: Iterable[str]) -> str:
    """Returns the sha256 of all source files of these rooms of the package.

    Unlike a commit it also tells changes that were not committed.
    """
    digest = hashlib.sha256()
    package = Path(magicbert.__file__).parent
    for room in sorted(rooms):
        for file in sorted((package / room).rglob("*.py")):
            digest.update(str(file.relative_to(package)).encode())
            digest.update(file.read_bytes())
    return digest.hexdigest()
