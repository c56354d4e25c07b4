"""``bench kernels --aot``: what the compiled kernels use, for GPUs that need not be there."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

from magicbert_kernels.ahead_of_time import (
    ARCHITECTURES,
    DTYPES,
    Compilation,
    compilations_of,
    compile_for,
    kernel_packages,
)

from magicbert.bench.machine import package_versions
from magicbert.bench.suite_record import sources_digest
from magicbert.errors import UserError
from magicbert.trail import current_commit

SCHEMA = "magicbert/bench-aot/1"
FILE = "aot.json"
HEAD = ("kernel", "type", "registers", "spilled [B]", "loads [bits]", "stores [bits]", "shared [B]")


def compiled_record() -> dict[str, Any]:
    """Compiles every kernel for every type and architecture; returns the record.

    Raises:
        UserError: under Triton's interpreter, or where Triton came without its tools.
    """
    try:
        rows = list(compiled_rows())
    except RuntimeError as error:
        raise UserError(f"kernels.aot: {error}") from error
    return {
        "command": "magicbert bench kernels --aot",
        "commit": current_commit(),
        "code_sha256": sources_digest(),
        "versions": package_versions(),
        "architectures": [f"sm_{number}" for number in ARCHITECTURES],
        "rows": rows,
    }


def compiled_rows() -> Iterator[dict[str, Any]]:
    """Yields a row per kernel, type and architecture."""
    for package in kernel_packages():
        for dtype in DTYPES:
            for compilation in compilations_of(package, dtype):
                for architecture in ARCHITECTURES:
                    resources = compile_for(compilation, architecture)
                    yield {
                        "kernel": compilation.kernel,
                        "dtype": str(dtype).removeprefix("torch."),
                        "architecture": f"sm_{architecture}",
                        "registers": resources.registers,
                        "spill_bytes": resources.spill_bytes,
                        "stack_bytes": resources.stack_bytes,
                        "shared_bytes": resources.shared_bytes,
                        "load_widths": streamed_widths(compilation, resources.load_bits),
                        "store_widths": streamed_widths(compilation, resources.store_bits),
                    }


def streamed_widths(
    compilation: Compilation, accesses: Mapping[str, Mapping[int, int]]
) -> dict[str, int]:
    """Returns the number of instructions by bits per thread, of the streamed tensors alone."""
    found: Counter[int] = Counter()
    for tensor in compilation.streamed:
        found.update(accesses.get(tensor, {}))
    return {str(bits): number for bits, number in sorted(found.items())}


def table_rows(record: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Returns a line per kernel and type; architectures in the record's order, by slashes."""

    def line(row: Mapping[str, Any]) -> tuple[str, str]:
        return row["kernel"], row["dtype"]

    return [
        (*key, *summary(list(rows)))
        for key, rows in groupby(sorted(record["rows"], key=line), key=line)
    ]


def summary(rows: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """Returns the cells of one kernel and type over all architectures."""
    return (
        "/".join(str(row["registers"]) for row in rows),
        "/".join(str(row["spill_bytes"]) for row in rows),
        "/".join(widths_text(row["load_widths"]) for row in rows),
        "/".join(widths_text(row["store_widths"]) for row in rows),
        "/".join(str(row["shared_bytes"]) for row in rows),
    )


def widths_text(widths: Mapping[str, int]) -> str:
    """Returns such as ``8x128``, or ``-`` where a kernel has none."""
    return "+".join(f"{number}x{bits}" for bits, number in widths.items()) or "-"


def origin(record: Mapping[str, Any]) -> str:
    """Returns what the table was made from, and how to read it."""
    return (
        f"Registers per thread, bytes spilled per thread, accesses of the streamed tensors by "
        f"width, shared memory per program, for {', '.join(record['architectures'])} in this "
        f"order. Commit {str(record['commit'])[:12]}, Triton {record['versions']['triton']}."
    )
