"""Compiles kernels for GPUs that are not there and reads what the machine code uses.

Triton needs no device to compile, and it ships the assembler's tools. Registers, spills and the
width of every load and store are exact and repeat, so that a machine without a GPU can hold a
kernel to them. How fast a kernel is they do not tell.
"""

# Triton brings no types.
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
import re
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import torch

import magicbert_kernels
from magicbert_kernels.global_accesses import Widths, global_accesses

ARCHITECTURES = (80, 90, 100)
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
# The most shared memory that one program can have: CUDA programming guide, compute capabilities.
SHARED_LIMITS = {80: 163 * 1024, 90: 227 * 1024, 100: 227 * 1024}
NUM_THREADS_PER_WARP = 32
TRITON_TYPES = {torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}
ALIGNED = [["tt.divisibility", 16]]

ArgumentType: TypeAlias = str | tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Compilation:
    """One kernel with everything its compiler must know, as training launches it.

    Attributes:
        kernel: name for tables: the package, then what tells this variant from others.
        function: the ``triton.jit`` function.
        signature: type of every argument that is no constant, such as ``*bf16`` or ``i32``; a
            tuple of types for a tuple of pointers.
        constexprs: value of every compile-time constant.
        num_warps: warps per program.
        divisible: pointers that are 16-byte aligned and numbers that are multiples of 16.
        streamed: tensors as large as the hidden states: what the kernel's time goes into.
        num_stages: how deep loads of a loop may be pipelined.
    """

    kernel: str
    function: Any
    signature: Mapping[str, ArgumentType]
    constexprs: Mapping[str, Any]
    num_warps: int
    divisible: tuple[str, ...]
    streamed: tuple[str, ...]
    num_stages: int = 3


@dataclass(frozen=True, slots=True)
class Resources:
    """What one compiled kernel uses.

    Attributes:
        registers: 32-bit registers per thread.
        spill_bytes: bytes per thread that its loads and stores of local memory move, each
            instruction counted once.
        stack_bytes: local memory per thread.
        load_bits: per tensor, number of load instructions by bits per thread.
        store_bits: the same of stores.
        shared_bytes: shared memory per program.
    """

    registers: int
    spill_bytes: int
    stack_bytes: int
    load_bits: Mapping[str, Widths]
    store_bits: Mapping[str, Widths]
    shared_bytes: int


def compilations_of(package: str, dtype: torch.dtype) -> list[Compilation]:
    """Returns what a kernel package lists: one per kernel and variant that training launches.

    Args:
        package: its full name, see `kernel_packages`.
        dtype: type of the inputs, one of `DTYPES`.
    """
    listing = importlib.import_module(f"{package}.compilations")
    return list(listing.compilations(dtype))


def kernel_packages() -> list[str]:
    """Returns the names of the packages with a ``compilations`` module, sorted."""
    root = magicbert_kernels.__path__
    names = [item.name for item in pkgutil.iter_modules(root) if item.ispkg]
    packages = [f"magicbert_kernels.{name}" for name in names]
    return sorted(p for p in packages if importlib.util.find_spec(f"{p}.compilations"))


def compile_for(compilation: Compilation, architecture: int) -> Resources:
    """Compiles one kernel for an NVIDIA GPU of a compute capability.

    Args:
        compilation: kernel and arguments.
        architecture: compute capability times ten, such as 90.

    Raises:
        RuntimeError: under Triton's interpreter, or where Triton came without its tools.
    """
    compiled = compile_source(compilation, architecture)
    registers, stack_bytes, local_bytes = resource_usage(compiled.asm["cubin"])
    spill_bytes = spilled_bytes(compiled.asm["cubin"]) if stack_bytes + local_bytes else 0
    loads, stores = global_accesses(compiled.asm["ptx"], runtime_arguments(compilation))
    return Resources(
        registers=registers,
        spill_bytes=spill_bytes,
        stack_bytes=stack_bytes + local_bytes,
        load_bits=loads,
        store_bits=stores,
        shared_bytes=compiled.metadata.shared,
    )


def compile_source(compilation: Compilation, architecture: int) -> Any:
    """Returns Triton's compiled kernel; Triton keeps it in its cache."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    if not isinstance(compilation.function, triton.JITFunction):
        raise RuntimeError("nothing compiles under Triton's interpreter: unset TRITON_INTERPRET")
    source = ASTSource(
        fn=compilation.function,
        signature=full_signature(compilation),
        constexprs=dict(compilation.constexprs),
        attrs=alignments(compilation),
    )
    options = {"num_warps": compilation.num_warps, "num_stages": compilation.num_stages}
    target = GPUTarget("cuda", architecture, NUM_THREADS_PER_WARP)
    return triton.compile(source, target=target, options=options)


def full_signature(compilation: Compilation) -> dict[str, ArgumentType]:
    """Returns the type of every argument in the function's order, constants among them."""
    given = dict(compilation.signature) | dict.fromkeys(compilation.constexprs, "constexpr")
    return {name: given[name] for name in compilation.function.arg_names}


def alignments(compilation: Compilation) -> dict[tuple[int, ...], list[list[Any]]]:
    """Returns Triton's attributes of the arguments that are multiples of 16, by position."""
    found: dict[tuple[int, ...], list[list[Any]]] = {}
    for index, (name, kind) in enumerate(full_signature(compilation).items()):
        if name not in compilation.divisible:
            continue
        if isinstance(kind, tuple):
            found |= {(index, place): ALIGNED for place in range(len(kind))}
        else:
            found[(index,)] = ALIGNED
    return found


def runtime_arguments(compilation: Compilation) -> list[tuple[str, str]]:
    """Returns name and type of every parameter of the machine code; tuples are spread out."""
    found: list[tuple[str, str]] = []
    for name, kind in full_signature(compilation).items():
        kinds = kind if isinstance(kind, tuple) else (kind,)
        found.extend((name, part) for part in kinds if part != "constexpr")
    return found


def resource_usage(cubin: bytes) -> tuple[int, int, int]:
    """Returns registers, stack bytes and local bytes per thread, as the assembler settled them."""
    report = run_tool("-res-usage", cubin)
    found = {name: int(value) for name, value in re.findall(r"\b(REG|STACK|LOCAL):(\d+)", report)}
    return found["REG"], found["STACK"], found["LOCAL"]


def spilled_bytes(cubin: bytes) -> int:
    """Returns the bytes that all instructions on local memory name together."""
    accesses = re.findall(r"\b(?:LDL|STL)((?:\.\w+)*)", run_tool("-sass", cubin))
    widths = [re.search(r"\.(?:[US])?(8|16|64|128)\b", access) for access in accesses]
    return sum(int(width.group(1)) // 8 if width else 4 for width in widths)


def run_tool(option: str, cubin: bytes) -> str:
    """Returns what the object dumper that Triton ships says about machine code."""
    import triton

    program = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    if not program.is_file():
        raise RuntimeError(f"this Triton ({triton.__version__}) came without cuobjdump")
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        done = subprocess.run(
            [str(program), option, file.name],
            capture_output=True, text=True, timeout=120, check=True,
        )  # fmt: skip
    return done.stdout
