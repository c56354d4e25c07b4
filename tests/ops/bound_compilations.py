"""Writes what compiled kernels may use under the installed Triton: what they use, and some room.

    python tests/ops/bound_compilations.py

test_compilations.py holds every compilation by the same minor version to it. Run it for a new
kernel, for a new Triton, or where a kernel needs more for a reason.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
import triton
from magicbert_kernels.ahead_of_time import (
    ARCHITECTURES,
    DTYPES,
    compilations_of,
    compile_for,
    kernel_packages,
)

FILE = Path(__file__).with_name("compilation_bounds.json")
ROOM = 16
MOST_REGISTERS = 255
DESIGNED = "by Triton's minor version, then kernel, then type: registers, bytes of shared memory"


def minor_version() -> str:
    return ".".join(triton.__version__.split(".")[:2])


def type_name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def measured() -> dict[str, dict[str, list[int]]]:
    """Returns the bounds by kernel and type: the most that an architecture needs, and room."""
    found: dict[str, dict[str, list[int]]] = {}
    for package in kernel_packages():
        for dtype in DTYPES:
            for compilation in compilations_of(package, dtype):
                all_of_it = [compile_for(compilation, number) for number in ARCHITECTURES]
                registers = max(resources.registers for resources in all_of_it)
                shared = max(resources.shared_bytes for resources in all_of_it)
                bounds = [min(registers + ROOM, MOST_REGISTERS), shared]
                found.setdefault(compilation.kernel, {})[type_name(dtype)] = bounds
    return found


def main() -> None:
    content = json.loads(FILE.read_text()) if FILE.exists() else {"format": DESIGNED}
    content[minor_version()] = measured()
    lines = []
    for version, bounds in sorted(content.items()):
        if isinstance(bounds, str):
            lines.append(f"  {json.dumps(version)}: {json.dumps(bounds)}")
            continue
        rows = [f"    {json.dumps(k)}: {json.dumps(v)}" for k, v in sorted(bounds.items())]
        lines.append(f"  {json.dumps(version)}: {{\n" + ",\n".join(rows) + "\n  }")
    FILE.write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main()
